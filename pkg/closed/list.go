package closed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Directions, as NetworkPolicy's policyTypes are about them, seen from the pod.
const (
	Ingress = "ingress" // what others begin
	Egress  = "egress"  // what the pod begins
)

// What becomes of a new pod that would be closed while no flatnetd runs on its node.
const (
	StayClosed = "closed" // until flatnetd runs: the policies hold
	BeOpen     = "open"   // pods are reached, whatever the policies say
)

// List says in which namespaces pods begin closed. The agent writes it to a file,
// the plugin reads that in every ADD, so that a pod is closed before anybody has
// been asked about it: after a reboot as well, when no API server may be in reach.
type List struct {
	// Namespaces are those that are known, each with the directions in which its
	// pods begin closed; with none where they are free.
	Namespaces map[string][]string `json:"namespaces"`
	// Others are the directions for namespaces that are not known. Where policies
	// select namespaces by labels, a new namespace may be selected.
	Others []string `json:"others,omitempty"`
	// WithoutAgent is StayClosed, which "" stands for, or BeOpen.
	WithoutAgent string `json:"withoutAgent,omitempty"`
}

// Of returns the directions in which pods of a namespace begin closed.
func (l List) Of(namespace string) (ingress, egress bool) {
	directions, known := l.Namespaces[namespace]
	if !known {
		directions = l.Others
	}
	for _, d := range directions {
		ingress, egress = ingress || d == Ingress, egress || d == Egress
	}
	return ingress, egress
}

// Policed reports whether any policy is about pods.
func (l List) Policed() bool {
	for _, directions := range l.Namespaces {
		if len(directions) > 0 {
			return true
		}
	}
	return len(l.Others) > 0
}

// Read reads a list. Without a file nothing is closed. A file that holds anything
// else than a list of which all is understood is an error: whoever cannot know
// what is closed has to take everything for it.
func Read(path string) (List, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return List{}, nil
	}
	if err != nil {
		return List{}, fmt.Errorf("reading list of closed namespaces: %w", err)
	}
	var l List
	if err := json.Unmarshal(raw, &l); err != nil {
		return List{}, fmt.Errorf("reading list of closed namespaces %s: %w", path, err)
	}
	if l.Namespaces == nil {
		return List{}, fmt.Errorf("reading list of closed namespaces %s: it has no namespaces", path)
	}
	if err := l.validate(); err != nil {
		return List{}, fmt.Errorf("reading list of closed namespaces %s: %w", path, err)
	}
	return l, nil
}

// Write writes a list, atomically: a reader finds the old one or the new one, and
// so does who comes after a loss of power. There may be one writer at a time. The
// directory is made where it is missing.
func Write(path string, l List) error {
	if l.Namespaces == nil {
		l.Namespaces = map[string][]string{}
	}
	if err := l.validate(); err != nil {
		return fmt.Errorf("writing list of closed namespaces: %w", err)
	}
	raw, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("encoding list of closed namespaces: %w", err)
	}
	directory := filepath.Dir(path)
	if err := os.MkdirAll(directory, 0o755); err != nil {
		return fmt.Errorf("writing list of closed namespaces: %w", err)
	}
	temporary := path + ".new"
	if err := writeSynced(temporary, append(raw, '\n')); err != nil {
		return fmt.Errorf("writing list of closed namespaces: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		return fmt.Errorf("writing list of closed namespaces: %w", err)
	}
	if err := syncDirectory(directory); err != nil {
		return fmt.Errorf("writing list of closed namespaces: syncing %s: %w", directory, err)
	}
	return nil
}

func (l List) validate() error {
	for namespace, directions := range l.Namespaces {
		if err := validate(directions); err != nil {
			return fmt.Errorf("namespace %q: %w", namespace, err)
		}
	}
	if err := validate(l.Others); err != nil {
		return fmt.Errorf("others: %w", err)
	}
	switch l.WithoutAgent {
	case "", StayClosed, BeOpen:
		return nil
	}
	return fmt.Errorf("withoutAgent is %q, not %q or %q", l.WithoutAgent, StayClosed, BeOpen)
}

func validate(directions []string) error {
	for _, d := range directions {
		if d != Ingress && d != Egress {
			return fmt.Errorf("%q is no direction: it is %q or %q", d, Ingress, Egress)
		}
	}
	return nil
}

// writeSynced writes a file that is on the disk afterwards.
func writeSynced(path string, raw []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	return errors.Join(err, file.Sync(), file.Close())
}

// syncDirectory has a directory's entries written to the disk.
func syncDirectory(directory string) error {
	d, err := os.Open(directory)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
