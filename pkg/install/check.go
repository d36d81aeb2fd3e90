package install

import (
	"path/filepath"

	"github.com/flatnet-cni/flatnet/pkg/problem"
)

// Finding is something on the disk that is not as it should be.
type Finding struct {
	Path   string // of the file
	What   string // what is wrong with it, to be read behind the path
	Advice string // what the operator is to do; "" where Sync puts it right
}

// Repairable says whether Sync puts it right.
func (f Finding) Repairable() bool { return f.Advice == "" }

// String is one line: path, what is wrong, what to do.
func (f Finding) String() string {
	if f.Repairable() {
		return f.Path + " " + f.What
	}
	return f.Path + " " + f.What + ": " + f.Advice
}

// Check compares the disk with what Sync would make of it and changes nothing.
// It is cheap enough for every few seconds: binaries are read only where one
// of their inodes has changed since they were last compared.
//
// Beside what is missing or different it finds configurations that keep a
// runtime from using flatnet's, which Sync leaves alone.
func (i *Installer) Check(n Network) []Finding {
	i.mu.Lock()
	defer i.mu.Unlock()
	var all []Finding
	if i.BinDir != "" {
		all = append(all, i.checkBinaries()...)
	}
	if i.ConfDir != "" {
		all = append(all, i.checkConflist(n)...)
	}
	return all
}

func (i *Installer) checkBinaries() (all []Finding) {
	for _, name := range binaries() {
		wrong, err := i.inspectBinary(name)
		switch {
		case err != nil:
			all = append(all, Finding{filepath.Join(i.BinDir, name), "cannot be installed: " + err.Error(),
				"let --plugins-dir be the directory that has flatnet and flatnet-ipam"})
		case wrong == isDirectory:
			all = append(all, Finding{filepath.Join(i.BinDir, name), wrong, adviceMove})
		case wrong != "":
			all = append(all, Finding{Path: filepath.Join(i.BinDir, name), What: wrong})
		}
	}
	return all
}

func (i *Installer) checkConflist(n Network) (all []Finding) {
	wanted, err := Conflist(n)
	if err != nil {
		all = append(all, Finding{i.conflist(), "cannot be written: " + err.Error(), "correct that value"})
	} else if found := i.inspectConflist(n.Name, wanted); found.blocks != "" {
		all = append(all, Finding{i.conflist(), found.blocks, adviceMove})
	} else if found.wrong != "" {
		all = append(all, Finding{Path: i.conflist(), What: found.wrong})
	}
	for _, path := range i.shadows() {
		all = append(all, Finding{path, "sorts before " + conflistName + ", and the container runtime uses the first",
			"if it is no longer wanted, rename it: mv " + path + " " + path + ".unused"})
	}
	return all
}

// Problems returns what keeps the plugin from being used on the node. What Sync
// would put right is only there because Sync failed.
func Problems(node string, findings []Finding) (all []problem.Problem) {
	for _, f := range findings {
		facts := problem.Facts{Node: node, Object: f.Path, Reason: f.What, Advice: f.Advice}
		if f.Repairable() {
			facts.Needs = []problem.Thing{problem.Installing}
		}
		all = append(all, problem.PluginFile.Of(facts))
	}
	return all
}
