package conformance

import (
	"context"
	"crypto/sha512"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
)

// kubernetes are the CNI_ARGS of containerd, which come in any order.
func kubernetes(a attachment) [][2]string {
	args := [][2]string{
		{"IgnoreUnknown", "1"},
		{"K8S_POD_NAMESPACE", "kube-system"},
		{"K8S_POD_NAME", "coredns-7d764666f9-x2x7k"},
		{"K8S_POD_INFRA_CONTAINER_ID", a.id},
		{"K8S_POD_UID", "0d1e7a52-6a0f-4c1f-a1a5-3e0f4a3e6f2b"},
	}
	rand.Shuffle(len(args), func(i, j int) { args[i], args[j] = args[j], args[i] })
	return args
}

// runtimeItems are the habits of containerd, kubelet and cnitool.
var runtimeItems = []item{
	{"C2.1", must, "what containerd sends with a 0.3.1 list works: K8S_POD_* in any order, DEL without prevResult", func(s *stage) {
		conf := s.conf("0.3.1")
		for i := range 5 {
			a := s.pod(fmt.Sprint(i))
			var args []string
			for _, pair := range kubernetes(a) {
				args = append(args, pair[0]+"="+pair[1])
			}
			a.args = strings.Join(args, ";")
			before := s.look(a)
			s.works(a, s.add(a, conf))
			s.del(a, conf)
			s.del(a.via(""), conf) // and again, once the namespace is gone
			s.nothingLeft("DEL", before, a)
		}
	}},
	{"C2.2", must, "what containerd sends with a 1.0.0 list works: runtimeConfig, prevResult from the cache", func(s *stage) {
		conf := with(s.dual("1.0.0"), object{"capabilities": object{
			"portMappings": true, "bandwidth": true, "dns": true, "cgroupPath": true, "io.kubernetes.cri.pod-annotations": true,
		}})
		l := s.library("1.0.0", conf)
		a := s.pod("a")
		before := s.look(a)
		rt := l.runtime(a, kubernetes(a)...)
		rt.CapabilityArgs = map[string]any{
			"bandwidth":                         object{"ingressRate": 0, "ingressBurst": uint64(1<<64 - 1)},
			"dns":                               object{"Servers": []string{"10.96.0.10"}, "Searches": []string{"svc.cluster.local"}},
			"cgroupPath":                        "/kubepods.slice/x",
			"io.kubernetes.cri.pod-annotations": map[string]string{"kubernetes.io/config.source": "api"},
		}
		s.works(a, l.add(rt))
		s.expect(l.del(rt))
		s.nothingLeft("DEL", before, a)
	}},
	{"C2.3", must, "the loopback plugin may run in the same pod at the same time", func(s *stage) {
		l := s.library("1.0.0", s.dual("1.0.0"))
		loopback := s.libraryOf(object{"cniVersion": "0.3.1", "name": "cni-loopback", "plugins": []object{{"type": "loopback"}}})
		for i := range 4 {
			attachBeside(s, l, loopback, s.pod(fmt.Sprint(i)))
		}
	}},
	{"C2.4", must, "the DEL that kubelet sends after an ADD that failed succeeds, again and again", func(s *stage) {
		l := s.library("1.0.0", s.dual("1.0.0"))
		a := s.pod("a").named("lo")
		before := s.look(a)
		err := l.do(func(ctx context.Context) error {
			_, err := l.cni.AddNetworkList(ctx, l.list, l.runtime(a))
			return err
		})
		if err == nil {
			s.failf("ADD of lo succeeded")
		}
		for range 3 {
			s.expect(l.del(l.runtime(a.named("eth0"))))
			s.expect(l.del(l.runtime(a.named("eth0").via(""))))
		}
		s.nothingLeft("DEL", before, a)
	}},
	{"C3.1", must, "what cnitool does works: its container id, a check, a status, a DEL", func(s *stage) {
		l := s.library("1.1.0", s.dual("1.1.0"))
		a := s.pod("a")
		a.id = fmt.Sprintf("cnitool-%x", sha512.Sum512([]byte(a.netns)))[:28]
		before := s.look(a)
		res := l.add(l.runtime(a))
		s.works(a, res)
		s.expect(l.check(l.runtime(a)))
		s.expect(l.status())
		s.expect(l.del(l.runtime(a)))
		s.nothingLeft("DEL", before, a)
	}},
	{"C3.2", must, "cnitool's gc, which has no list, hurts no pod of another runtime", func(s *stage) {
		l := s.library("1.1.0", s.dual("1.1.0"))
		cached := s.pod("cached")
		before := s.look(cached)
		l.add(l.runtime(cached))
		a, res := s.attach("a", s.dual("1.1.0"))
		s.expect(l.gc(nil)) // libcni deletes what its own cache has
		if now := snapshot(cached.space); now != before.pods[cached.id] {
			s.failf("the cached attachment is not gone: %s", difference(before.pods[cached.id], now))
		}
		s.quiet("CHECK", s.check(a, s.dual("1.1.0"), res))
		s.works(a, res)
	}},
}

// attachBeside attaches a pod to two networks at once and detaches it.
func attachBeside(s *stage, l, loopback *library, a attachment) {
	var failed error
	var beside sync.WaitGroup
	beside.Go(func() {
		failed = loopback.do(func(ctx context.Context) error {
			_, err := loopback.cni.AddNetworkList(ctx, loopback.list, loopback.runtime(a.named("lo")))
			return err
		})
	})
	defer beside.Wait() // also where the other one ends the item
	res := l.add(l.runtime(a, kubernetes(a)...))
	beside.Wait()
	s.expect(failed)
	s.works(a, res)
	s.expect(l.del(l.runtime(a)))
	s.expect(loopback.del(loopback.runtime(a.named("lo"))))
}
