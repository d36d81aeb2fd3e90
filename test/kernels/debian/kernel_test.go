package debian

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKernelOfOnesOwn(t *testing.T) {
	directory := t.TempDir()
	image, modules := filepath.Join(directory, "bzImage"), filepath.Join(directory, "6.99.0")
	if err := os.WriteFile(image, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Kernel{
		image:                   {Name: "bzImage", Image: image, Origin: image},
		image + ":" + modules:   {Name: "bzImage", Image: image, Modules: modules, Release: "6.99.0", Origin: image},
		image + ":" + "/no/one": {},
	} {
		kernel, err := GetKernel(t.Context(), directory, name, "amd64", false, t.Output())
		if want.Image == "" {
			if err == nil {
				t.Errorf("%s was taken as %+v", name, kernel)
			}
			continue
		}
		if err != nil || *kernel != want {
			t.Errorf("%s is %+v, %v; want %+v", name, kernel, err, want)
		}
	}
}

func TestDependsOfAPackage(t *testing.T) {
	needs := parseDepends("bash\n  PreDepends: libc6\n |Depends: first\n  Depends: second\n  Depends: <virtual>\n    other\nlibc6\n  Depends: libgcc-s1\n")
	if got := needs["bash"]; len(got) != 2 || got[0] != "libc6" || got[1] != "second" {
		t.Errorf("bash needs %q", got)
	}
	if got := needs["libc6"]; len(got) != 1 || got[0] != "libgcc-s1" {
		t.Errorf("libc6 needs %q", got)
	}
}
