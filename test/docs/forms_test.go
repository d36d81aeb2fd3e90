package docs

import (
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/test/reference"
)

// GitHub shows a form with a mistake as none at all, and without a word.
func TestIssueForms(t *testing.T) {
	files, err := filepath.Glob(reference.Path(t, ".github", "ISSUE_TEMPLATE", "*.yml"))
	if err != nil || len(files) < 2 {
		t.Fatalf("forms %v, %v", files, err)
	}
	for _, file := range files {
		if filepath.Base(file) == "config.yml" {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var form struct {
			Name        string   `json:"name"`
			Description string   `json:"description"`
			Labels      []string `json:"labels"`
			Body        []struct {
				Type       string `json:"type"`
				ID         string `json:"id"`
				Attributes struct {
					Label       string `json:"label"`
					Description string `json:"description"`
					Value       string `json:"value"`
					Render      string `json:"render"`
				} `json:"attributes"`
				Validations struct {
					Required bool `json:"required"`
				} `json:"validations"`
			} `json:"body"`
		}
		if err := yaml.UnmarshalStrict(text, &form); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		if form.Name == "" || form.Description == "" {
			t.Errorf("%s has no name or no description", filepath.Base(file))
		}
		ids, questions := map[string]bool{}, 0
		for _, field := range form.Body {
			switch field.Type {
			case "markdown":
				if field.Attributes.Value == "" {
					t.Errorf("%s has a text that says nothing", filepath.Base(file))
				}
			case "input", "textarea":
				questions++
				if field.ID == "" || ids[field.ID] || field.Attributes.Label == "" {
					t.Errorf("%s has a field %q, %q without a name of its own", filepath.Base(file), field.ID, field.Attributes.Label)
				}
				ids[field.ID] = true
			default:
				t.Errorf("%s has a field of type %q", filepath.Base(file), field.Type)
			}
		}
		if questions == 0 {
			t.Errorf("%s asks nothing", filepath.Base(file))
		}
	}
}
