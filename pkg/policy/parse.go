package policy

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// found is what is in a file.
type found struct {
	namespaces []*v1.Namespace
	pods       []*apiwatch.Pod
	nodes      []*v1.Node
	policies   []*networking.NetworkPolicy
	cluster    []*apiwatch.ClusterNetworkPolicy
	others     []string // objects of other kinds, in words
}

func (f *found) count() int {
	return len(f.namespaces) + len(f.pods) + len(f.nodes) + len(f.policies) + len(f.cluster)
}

// parse reads a file of objects, in JSON or YAML.
func parse(text []byte, isJSON bool) (*found, error) {
	all := &found{}
	next := nextYAML(text)
	if isJSON {
		next = nextJSON(text)
	}
	for i := 1; ; i++ {
		object, err := next()
		switch {
		case errors.Is(err, io.EOF):
			return all, nil
		case err == nil && string(object) == "null": // nothing, or comments
		case err == nil:
			err = all.add(object, head{})
		}
		if err != nil {
			return nil, fmt.Errorf("document %d: %w", i, err)
		}
	}
}

// nextYAML returns what returns the next document, as JSON.
func nextYAML(text []byte) func() (json.RawMessage, error) {
	documents := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	return func() (json.RawMessage, error) {
		document, err := documents.Read()
		if err != nil {
			return nil, err
		}
		return yaml.YAMLToJSONStrict(document)
	}
}

func nextJSON(text []byte) func() (json.RawMessage, error) {
	documents := json.NewDecoder(bytes.NewReader(text))
	return func() (object json.RawMessage, err error) {
		return object, documents.Decode(&object)
	}
}

// head is what all objects begin with.
type head struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

func (h head) String() string {
	return cmp.Or(h.Kind, "an object without a kind") + " " + Name{h.Metadata.Namespace, h.Metadata.Name}.String()
}

// add adds an object, or those of a list. In a list of a kind they need not say it again:
// list is what it says.
func (f *found) add(object json.RawMessage, list head) error {
	var h head
	if err := json.Unmarshal(object, &h); err != nil {
		return err
	}
	if h.Kind == "" {
		h.Kind, h.APIVersion = strings.TrimSuffix(list.Kind, "List"), list.APIVersion
	}
	if strings.HasSuffix(h.Kind, "List") {
		for i, item := range h.Items {
			if err := f.add(item, h); err != nil {
				return fmt.Errorf("item %d of the %s: %w", i+1, h.Kind, err)
			}
		}
		return nil
	}
	read, known := f.reader(h)
	if !known {
		f.others = append(f.others, h.String())
		return nil
	}
	if h.Metadata.Name == "" {
		return fmt.Errorf("a %s has no name", h.Kind)
	}
	if err := read(object); err != nil {
		return fmt.Errorf("%s: %w", h, err)
	}
	return nil
}

// reader returns what reads an object of this kind. One of policies reads nothing that it
// does not know: a word that is misspelt may be the one that narrows what is allowed.
func (f *found) reader(h head) (read func(json.RawMessage) error, known bool) {
	namespace := cmp.Or(h.Metadata.Namespace, v1.NamespaceDefault)
	group, version, _ := strings.Cut(h.APIVersion, "/")
	switch {
	case h.APIVersion == "v1" && h.Kind == "Pod":
		return func(text json.RawMessage) error {
			o := &v1.Pod{}
			err := json.Unmarshal(text, o)
			o.Namespace = namespace
			f.pods = append(f.pods, apiwatch.PodOf(o))
			return err
		}, true
	case h.APIVersion == "v1" && h.Kind == "Namespace":
		return func(text json.RawMessage) error {
			o := &v1.Namespace{}
			err := json.Unmarshal(text, o)
			f.namespaces = append(f.namespaces, o)
			return err
		}, true
	case h.APIVersion == "v1" && h.Kind == "Node":
		return func(text json.RawMessage) error {
			o := &v1.Node{}
			err := json.Unmarshal(text, o)
			f.nodes = append(f.nodes, o)
			return err
		}, true
	case h.APIVersion == networking.SchemeGroupVersion.String() && h.Kind == "NetworkPolicy":
		return func(text json.RawMessage) error {
			var o struct {
				networking.NetworkPolicy
				Status json.RawMessage `json:"status"` // Kubernetes 1.24 to 1.27 writes one
			}
			err := strict(text, &o)
			o.Namespace = namespace
			f.policies = append(f.policies, &o.NetworkPolicy)
			return err
		}, true
	case group == apiwatch.ClusterNetworkPolicyGroup && slices.Contains(apiwatch.ClusterNetworkPolicyVersions(), version) && h.Kind == "ClusterNetworkPolicy":
		return func(text json.RawMessage) error {
			o := &apiwatch.ClusterNetworkPolicy{}
			err := strict(text, o)
			f.cluster = append(f.cluster, o)
			return err
		}, true
	}
	return nil, false
}

func strict(text json.RawMessage, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(into)
}
