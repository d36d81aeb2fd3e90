package conformance

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"slices"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// library is the CNI library as a runtime uses it, on the stage's node.
type library struct {
	s    *stage
	cni  *libcni.CNIConfig
	list *libcni.NetworkConfigList
}

// library makes a list of the plugin and those that are chained to it. Their
// name and version are the list's.
func (s *stage) library(version string, first object, chained ...object) *library {
	plugins := []object{with(first, object{"name": nil, "cniVersion": nil})}
	return s.libraryOf(object{"cniVersion": version, "name": network, "plugins": append(plugins, chained...)})
}

// libraryOf uses a list as it is.
func (s *stage) libraryOf(conflist object) *library {
	raw, err := json.Marshal(conflist)
	s.expect(err)
	list, err := libcni.ConfListFromBytes(raw)
	s.expect(err)
	return &library{s, libcni.NewCNIConfigWithCacheDir(s.plugin.search, filepath.Join(s.scratch, "cache"), nil), list}
}

// runtime is what a runtime knows of an attachment.
func (l *library) runtime(a attachment, args ...[2]string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: a.id, NetNS: a.netns, IfName: a.ifname, Args: args}
}

// do calls the library on a thread in the node's namespace, so that the plugins
// are executed there.
func (l *library) do(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	return l.s.node.Do(func() error { return f(ctx) })
}

// add attaches a pod and returns the result in the newest version.
func (l *library) add(rt *libcni.RuntimeConf) result {
	var printed types.Result
	l.s.expect(l.do(func(ctx context.Context) (err error) {
		printed, err = l.cni.AddNetworkList(ctx, l.list, rt)
		return err
	}))
	now, err := types100.NewResultFromResult(printed)
	l.s.expect(err)
	raw, err := json.Marshal(now)
	l.s.expect(err)
	res, err := parseResult(string(raw))
	l.s.expect(err)
	return res
}

func (l *library) check(rt *libcni.RuntimeConf) error {
	return l.do(func(ctx context.Context) error { return l.cni.CheckNetworkList(ctx, l.list, rt) })
}

func (l *library) del(rt *libcni.RuntimeConf) error {
	return l.do(func(ctx context.Context) error { return l.cni.DelNetworkList(ctx, l.list, rt) })
}

func (l *library) gc(args *libcni.GCArgs) error {
	return l.do(func(ctx context.Context) error { return l.cni.GCNetworkList(ctx, l.list, args) })
}

func (l *library) status() error {
	return l.do(func(ctx context.Context) error { return l.cni.GetStatusNetworkList(ctx, l.list) })
}

// libraryItems use the plugin as runtimes do, by way of libcni.
var libraryItems = []item{
	{"C1.1", must, "libcni attaches, checks and detaches a pod in every version of lists", func(s *stage) {
		for _, version := range []string{"0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
			l := s.library(version, s.dual(version))
			a := s.pod("a" + version)
			before := s.look(a)
			res := l.add(l.runtime(a))
			s.works(a, res)
			if version >= "0.4.0" {
				s.expect(l.check(l.runtime(a)))
			}
			s.expect(l.del(l.runtime(a)))
			s.nothingLeft("DEL", before, a)
		}
	}},
	{"C1.2", must, "libcni finds the plugin fit for every version that it lists", func(s *stage) {
		for _, version := range s.supported() {
			l := s.library(version, s.conf(version))
			s.expect(l.do(func(ctx context.Context) error {
				_, err := l.cni.ValidateNetworkList(ctx, l.list)
				return err
			}))
		}
		l := s.library("1.1.0", s.conf("1.1.0"))
		s.expect(l.do(func(ctx context.Context) error {
			info, err := l.cni.GetVersionInfo(ctx, s.plugin.name())
			if err == nil && !slices.Contains(info.SupportedVersions(), "1.1.0") {
				s.failf("libcni understands %v", info.SupportedVersions())
			}
			return err
		}))
	}},
	{"C1.3", must, "libcni's DEL without its cache, after the pod's namespace is gone, frees everything", func(s *stage) {
		l := s.library("1.1.0", s.dual("1.1.0"))
		a := s.pod("a")
		res := l.add(l.runtime(a))
		s.vanish(a)
		forgetful := s.library("1.1.0", s.dual("1.1.0"))
		forgetful.cni = libcni.NewCNIConfigWithCacheDir(s.plugin.search, filepath.Join(s.scratch, "empty"), nil)
		s.expect(forgetful.del(l.runtime(a.via(""))))
		for _, address := range res.addresses() {
			if _, held := s.reservations(network)[address]; held {
				s.failf("%v is still reserved", address)
			}
		}
		s.expect(l.del(l.runtime(a)))
	}},
	{"C1.4", should, "libcni's GC frees an attachment that neither runtime nor cache knows of", func(s *stage) {
		l := s.library("1.1.0", s.dual("1.1.0"))
		live, stale := s.pod("live"), s.pod("stale")
		kept := l.add(l.runtime(live))
		// Not by way of the library, so that its cache does not have it.
		old := s.add(stale, s.dual("1.1.0"))
		s.expect(l.gc(&libcni.GCArgs{ValidAttachments: []types.GCAttachment{{ContainerID: live.id, IfName: live.ifname}}}))
		collected(s, "GC", stale, old)
		s.expect(l.check(l.runtime(live)))
		s.works(live, kept)
	}},
	{"C1.5", must, "libcni reports a STATUS that is good, and the code of one that is not", func(s *stage) {
		l := s.library("1.1.0", s.conf("1.1.0"))
		s.expect(l.status())
		bad := s.library("1.1.0", s.recorder(s.conf("1.1.0"), script{
			Fail:  map[string]bool{"STATUS": true},
			Reply: map[string]object{"STATUS": {"code": 50, "msg": "not now"}},
		}))
		var e *types.Error
		if err := bad.status(); !errors.As(err, &e) || e.Code != errorUnavailable {
			s.failf("libcni's STATUS: %v", err)
		}
	}},
	{"C1.6", must, "libcni gets the code of an ADD that fails", func(s *stage) {
		l := s.library("1.1.0", s.conf("1.1.0"))
		a := s.pod("a")
		before := s.look(a)
		err := l.do(func(ctx context.Context) error {
			_, err := l.cni.AddNetworkList(ctx, l.list, l.runtime(a.via(s.node.Path)))
			return err
		})
		var e *types.Error
		if !errors.As(err, &e) || e.Code != errorNetns {
			s.failf("libcni's ADD into the plugin's own namespace: %v", err)
		}
		s.nothingLeft("ADD", before, a)
	}},
}
