package policy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/pkg/filewatch"
)

// largestFile is the size of a file, in bytes, beyond which it is taken for a mistake.
const largestFile = 64 << 20

// Directory is a Source that reads the objects of a cluster from the files of a directory
// whose names end in .yaml, .yml or .json: NetworkPolicies, ClusterNetworkPolicies, pods,
// namespaces and nodes as kubectl writes and reads them, in as many documents and lists as one
// likes. Names with a dot before them are left out.
//
// A namespace that pods are in does not need to be in a file. Each has the label
// kubernetes.io/metadata.name, as the API server gives it.
//
// A file that is malformed, or cannot be read, leaves what was good of it before as it is;
// one that is deleted takes its objects along. While the directory is not there, all stays.
type Directory struct {
	path   string
	log    *slog.Logger
	poll   time.Duration
	listed *listed

	mu    sync.Mutex
	wrong []string // in the files, or with the directory
	since time.Time
}

var _ Source = (*Directory)(nil)

// NewDirectory returns a source that reads the files of the directory at path.
func NewDirectory(path string, log *slog.Logger) *Directory {
	return &Directory{
		path: path, log: log.With("directory", path), poll: filewatch.Poll, listed: newListed(),
		wrong: []string{"it has not been read yet"}, since: time.Now(),
	}
}

// Changed implements Source.
func (d *Directory) Changed() <-chan struct{} { return d.listed.changed }

// Take implements Source.
func (d *Directory) Take() Batch { return d.listed.take() }

// Known implements Source.
func (d *Directory) Known() bool { return d.listed.known() }

// Unread returns the objects that cannot be understood, with what is wrong. A Batch has
// what they were before.
func (d *Directory) Unread() []Unread { return d.listed.why() }

// Check implements Source. The error names the files that are not good, and the objects
// that are of no use here.
func (d *Directory) Check() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.wrong) == 0 {
		return nil
	}
	return fmt.Errorf("reading policies from directory %s: since %s: %s", d.path, d.since.UTC().Format(time.RFC3339), strings.Join(d.wrong, "; "))
}

// become notes what is wrong, and logs it if it is something else.
func (d *Directory) become(wrong []string) {
	d.mu.Lock()
	before := d.wrong
	d.wrong = wrong
	if len(before) == 0 {
		d.since = time.Now()
	}
	d.mu.Unlock()
	switch {
	case len(wrong) > 0 && !slices.Equal(wrong, before):
		d.log.Error("policy files are not all good", "err", strings.Join(wrong, "; "))
	case len(wrong) == 0 && len(before) > 0:
		d.log.Info("policy files are good")
	}
}

// Run follows the directory until ctx ends. A change is told some milliseconds after the
// file is closed by its writer, or renamed into place.
func (d *Directory) Run(ctx context.Context) {
	reading := newReading(d)
	defer reading.watching.Close()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for first := true; ; first = false {
		polled := false
		select {
		case <-ctx.Done():
			return
		case <-reading.watching.Changed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(filewatch.Settle):
			}
		case <-timer.C:
			polled = !first
		}
		next := d.poll
		if !reading.read(polled) {
			next = min(next, filewatch.PollUnwatched)
		}
		timer.Reset(next)
	}
}

// reading is what Run knows of the files.
type reading struct {
	*Directory
	watching *filewatch.Watching
	warned   bool // that the directory cannot be watched
	files    map[string]*file
}

// file is one of the directory.
type file struct {
	text  []byte // read last
	err   error  // why nothing could be made of it
	found *found // the last that was good
}

func newReading(d *Directory) *reading {
	return &reading{Directory: d, watching: filewatch.NewWatching(concerns), files: map[string]*file{}}
}

// watch watches the directory while it is there.
func (r *reading) watch() error {
	err := r.watching.Ensure(r.path)
	if err != nil && !r.warned {
		r.log.Warn("policy files cannot be watched: reading them every second", "err", err)
	}
	r.warned = err != nil
	return err
}

// concerns reports whether a change of the directory's entry may be one of a file. Files
// of a ConfigMap are symbolic links through ..data.
func concerns(name string) bool { return name == "..data" || counts(name) }

// counts reports whether a file of a name is one to read.
func counts(name string) bool {
	switch filepath.Ext(name) {
	case ".yaml", ".yml", ".json":
		return !strings.HasPrefix(name, ".")
	}
	return false
}

// read reads all files that are whole, and tells what has changed. It reports whether
// there is nothing to be read again soon. Where it is polled, what has not changed for long
// is whole, whoever has it open.
func (r *reading) read(polled bool) bool {
	// Watch first, then read: no change is missed in between.
	unwatched := r.watch()
	entries, err := os.ReadDir(r.path)
	if err != nil {
		var path *os.PathError
		if errors.As(err, &path) {
			err = path.Err
		}
		text := err.Error() + "; waiting for it"
		if len(r.files) > 0 {
			text = err.Error() + "; what was read before stays"
		}
		r.become([]string{text})
		return false
	}
	there := map[string]*file{}
	calm := unwatched == nil
	for _, e := range entries {
		name := e.Name()
		if !counts(name) {
			continue
		}
		known := r.files[name]
		path := filepath.Join(r.path, name)
		if polled && filewatch.Young(path) {
			calm = false
		} else if polled || r.watching.Whole(name) {
			text, err := filewatch.Read(path, largestFile)
			// One that is being written to by now will be changed again.
			if polled || r.watching.Whole(name) {
				known = known.with(name, text, err)
			}
		}
		if known != nil {
			there[name] = known
		}
	}
	r.files = there
	r.tell()
	return calm
}

// with returns the file with what was read of it just now; f may be nil.
func (f *file) with(name string, text []byte, err error) *file {
	if f == nil {
		f = &file{found: &found{}}
	}
	if err != nil {
		return &file{err: err, found: f.found}
	}
	if f.text != nil && bytes.Equal(text, f.text) {
		return f
	}
	objects, err := parse(text, filepath.Ext(name) == ".json")
	if err != nil {
		return &file{text: text, err: err, found: f.found}
	}
	return &file{text: text, found: objects}
}

// tell notes all objects of all files.
func (r *reading) tell() {
	all, wrong := r.gather()
	l := r.listed
	// All at once: nobody is to see a part of a change.
	l.mu.Lock()
	namespaceStore(l).replace(all.namespaces)
	podStore(l).replace(all.pods)
	nodeStore(l).replace(all.nodes)
	networkPolicyStore(l).replace(all.policies)
	clusterPolicyStore(l).replace(all.cluster)
	for _, one := range l.unread() {
		wrong = append(wrong, one.Object+": "+one.Why)
	}
	l.mu.Unlock()
	slices.Sort(wrong)
	r.become(wrong)
}

// gathered are the objects of all files.
type gathered struct {
	namespaces map[string]*v1.Namespace
	pods       map[Name]*apiwatch.Pod
	nodes      map[string]*v1.Node
	policies   map[PolicyKey]*networking.NetworkPolicy
	cluster    map[PolicyKey]*apiwatch.ClusterNetworkPolicy
}

// gather returns the objects of all files, and what is wrong with these. Of an object that
// is in several files, the first by name has it.
func (r *reading) gather() (all gathered, wrong []string) {
	all = gathered{map[string]*v1.Namespace{}, map[Name]*apiwatch.Pod{}, map[string]*v1.Node{}, map[PolicyKey]*networking.NetworkPolicy{}, map[PolicyKey]*apiwatch.ClusterNetworkPolicy{}}
	names := make([]string, 0, len(r.files))
	for name := range r.files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		f := r.files[name]
		if f.err != nil {
			text := name + ": " + f.err.Error()
			if n := f.found.count(); n > 0 {
				text += fmt.Sprintf("; the %d objects read before stay", n)
			}
			wrong = append(wrong, text)
		}
		for _, other := range f.found.others {
			wrong = append(wrong, name+": "+other+" is of no use here")
		}
		twice := func(what string, of fmt.Stringer) {
			wrong = append(wrong, fmt.Sprintf("%s: the %s %s is there twice, and the first is taken", name, what, of))
		}
		for _, o := range f.found.namespaces {
			once(all.namespaces, o.Name, named(o), func() { twice("namespace", Name{Name: o.Name}) })
		}
		for _, o := range f.found.pods {
			key := Name{o.Namespace, o.Name}
			once(all.pods, key, o, func() { twice("pod", key) })
		}
		for _, o := range f.found.nodes {
			once(all.nodes, o.Name, o, func() { twice("node", Name{Name: o.Name}) })
		}
		for _, o := range f.found.policies {
			key := PolicyKey{Name: Name{o.Namespace, o.Name}}
			once(all.policies, key, o, func() { twice("NetworkPolicy", key.Name) })
		}
		for _, o := range f.found.cluster {
			key := PolicyKey{true, Name{Name: o.Name}}
			once(all.cluster, key, o, func() { twice("ClusterNetworkPolicy", key.Name) })
		}
	}
	for name := range all.pods {
		if all.namespaces[name.Namespace] == nil {
			o := &v1.Namespace{}
			o.Name = name.Namespace
			all.namespaces[o.Name] = named(o)
		}
	}
	return all, wrong
}

func once[K comparable, T any](all map[K]T, key K, o T, twice func()) {
	if _, is := all[key]; is {
		twice()
		return
	}
	all[key] = o
}

// named returns a namespace with the label that the API server gives it.
func named(o *v1.Namespace) *v1.Namespace {
	c := o.DeepCopy()
	if c.Labels == nil {
		c.Labels = map[string]string{}
	}
	c.Labels[v1.LabelMetadataName] = c.Name
	return c
}
