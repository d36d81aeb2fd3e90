package kubectl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// walk is the way from one pod to another, with what is known of both ends.
type walk struct {
	program string // the version of this program
	client  *client
	asker   asker
	port    string // "" where none was given, and none is known
	ends    [2]end
}

// end is one of the pods, and its node by the words of its flatnetd.
type end struct {
	namespace, name string
	pod             *v1.Pod
	missing         error // why there is no pod
	addresses       []netip.Addr
	site            site
	noSite          bool // the node has no flatnetd that anybody knows

	attached asked[attachedPods]
	status   asked[fullStatus]
	explains []asked[explanation] // by family
	flows    asked[nodeFlows]     // of the pod, where the node has the fast path
}

func (e *end) String() string { return e.namespace + "/" + e.name }

// asked is an answer, or why there is none.
type asked[T any] struct {
	said T
	err  error
}

// attachedPods is what is read of `flatnetd status pods -o json`.
type attachedPods struct {
	Pods []struct {
		Pod       string       `json:"pod"`
		Addresses []netip.Addr `json:"addresses"`
		Interface string       `json:"hostInterface"`
		Faults    []struct {
			Word   string `json:"word"`
			Reason string `json:"reason"`
		} `json:"faults"`
	} `json:"pods"`
}

// fullStatus is what of `flatnetd status -o json` a way depends on.
type fullStatus struct {
	answer
	Peers []peerWays
}

type peerWays struct {
	Name string `json:"name"`
	Ways []way  `json:"ways"`
}

type way struct {
	PodCIDR netip.Prefix `json:"podCIDR"`
	Mode    string       `json:"mode"`
	Via     netip.Addr   `json:"via"`
	Link    string       `json:"link"`
	Present bool         `json:"present"`
	Health  health       `json:"health"`
}

// UnmarshalJSON reads both parts. Peers that cannot be read are named as other fields are.
func (s *fullStatus) UnmarshalJSON(raw []byte) (err error) {
	if s.answer, err = readAnswer(raw); err != nil {
		return err
	}
	var more struct{ Peers json.RawMessage }
	if err := json.Unmarshal(raw, &more); err != nil || more.Peers == nil {
		return err
	}
	if json.Unmarshal(more.Peers, &s.Peers) != nil && !slices.Contains(s.unread, "peers") {
		s.unread = append(s.unread, "peers")
	}
	return nil
}

// explanation is what is read of `flatnetd policy explain -o json`.
type explanation struct {
	Decisions []struct {
		Pod       string `json:"pod"`
		Direction string `json:"direction"`
		Allowed   bool   `json:"allowed"`
		Because   string `json:"because"`
	} `json:"decisions"`
	Kernel *struct {
		Differs []string     `json:"differs"`
		Closed  []netip.Addr `json:"closed"`
		Evicted []netip.Addr `json:"evicted"`
	} `json:"kernel"`
}

// gather finds out all that there is to know. What cannot be had is noted where it
// belongs; an error is what leaves nothing to say.
func (w *walk) gather(ctx context.Context, namespace string) error {
	for i := range w.ends {
		if err := w.ends[i].find(ctx, w.client); err != nil {
			return err
		}
	}
	s, err := w.client.look(ctx, namespace)
	if err != nil {
		return err
	}
	if to := w.ends[1].pod; w.port == "" && to != nil {
		w.port = declaredPort(to)
	}
	for i := range w.ends {
		e := &w.ends[i]
		if e.pod == nil || e.pod.Spec.NodeName == "" {
			continue
		}
		at := slices.IndexFunc(s.Sites, func(at site) bool { return at.Node == e.pod.Spec.NodeName })
		if e.noSite = at < 0; !e.noSite {
			e.site = s.Sites[at]
		}
	}
	pairs := w.pairs()
	atOnce(ctx, len(w.ends), len(w.ends), func(i int) {
		e := &w.ends[i]
		if e.pod == nil || e.noSite || e.site.Container.Pod == "" || e.site.Fault != nil {
			return
		}
		e.attached = ask[attachedPods](ctx, w.asker, e.site, "status", "pods", "-o", "json")
		e.status = ask[fullStatus](ctx, w.asker, e.site, "status", "-o", "json")
		if e.status.said.DataPath.takes() && len(e.addresses) > 0 {
			e.flows = ask[nodeFlows](ctx, w.asker, e.site, "flows", "-o", "json", "--address", joined(e.addresses))
		}
		if w.port == "" {
			return
		}
		for _, p := range pairs {
			e.explains = append(e.explains, ask[explanation](ctx, w.asker, e.site, "policy", "explain", "-o", "json", p[0].String(), p[1].String(), w.port))
		}
	})
	return nil
}

// ask asks the flatnetd of a site, within an answer's time.
func ask[T any](ctx context.Context, a asker, s site, words ...string) (all asked[T]) {
	ctx, done := a.limit(ctx)
	defer done()
	raw, err := a.flatnetd(ctx, s, words...)
	if err != nil {
		return asked[T]{err: err}
	}
	if err := json.Unmarshal(raw, &all.said); err != nil {
		all.err = fmt.Errorf("reading the answer to flatnetd %s: %w", strings.Join(words, " "), err)
	}
	return all
}

// find reads the pod.
func (e *end) find(ctx context.Context, c *client) error {
	pod, err := kind[v1.Pod](c, "pods", e.namespace).Get(ctx, e.name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		e.missing = err
		return nil
	case err != nil:
		return fmt.Errorf("reading pod %s: %w", e, err)
	}
	e.pod = pod
	e.addresses = podAddresses(pod)
	return nil
}

// pairs are the addresses of both ends, by family.
func (w *walk) pairs() (all [][2]netip.Addr) {
	for _, a := range w.ends[0].addresses {
		for _, b := range w.ends[1].addresses {
			if a.Is4() == b.Is4() {
				all = append(all, [2]netip.Addr{a, b})
			}
		}
	}
	return all
}

// declaredPort is the first that a pod says it listens at, "" where it says none.
func declaredPort(p *v1.Pod) string {
	for _, c := range p.Spec.Containers {
		if len(c.Ports) > 0 {
			protocol := strings.ToLower(string(cmp.Or(c.Ports[0].Protocol, v1.ProtocolTCP)))
			return strconv.Itoa(int(c.Ports[0].ContainerPort)) + "/" + protocol
		}
	}
	return ""
}

// podAddresses are those that Kubernetes says of a pod.
func podAddresses(p *v1.Pod) (all []netip.Addr) {
	for _, ip := range p.Status.PodIPs {
		if a, err := netip.ParseAddr(ip.IP); err == nil {
			all = append(all, a)
		}
	}
	return all
}
