package loadbalancer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/service"
)

// model is an API server, two agents that lead in turn, and users who change Services and
// pools. What the API server tells comes to an agent late, and what an agent writes may
// fail, or seem to.
type model struct {
	t       *testing.T
	random  *rand.Rand
	objects map[service.Name]*v1.Service
	version int
	agents  [2]*modelAgent
	config  *Config
	calm    bool // nothing fails
	history []string
}

type modelAgent struct {
	*Source
	model   *model
	queue   []func() // what the watch has not brought yet
	control *Controller
	leads   bool
	lapses  uint64
}

func (a *modelAgent) Known() bool    { return true }
func (a *modelAgent) Lapses() uint64 { return a.lapses }

func (a *modelAgent) Until() (until, from time.Time) {
	if a.leads {
		return time.Now().Add(time.Hour), time.Now()
	}
	return time.Time{}, time.Time{}
}

func (a *modelAgent) Catch(context.Context) error {
	for _, o := range a.model.objects {
		a.setService(o)
	}
	return nil
}

func (a *modelAgent) Report(context.Context, service.Name, string, string, string) {}

func (m *model) note(format string, arguments ...any) {
	m.history = append(m.history, fmt.Sprintf(format, arguments...))
}

// tell has all agents hear of an object some time.
func (m *model) tell(f func(*Source)) {
	for _, a := range m.agents {
		a.queue = append(a.queue, func() { f(a.Source) })
	}
}

func (m *model) put(o *v1.Service) {
	m.version++
	o.ResourceVersion = strconv.Itoa(m.version)
	m.objects[service.Name{Namespace: o.Namespace, Name: o.Name}] = o
	m.tell(func(s *Source) { s.setService(o) })
}

func (m *model) remove(name service.Name) {
	o := m.objects[name].DeepCopy()
	delete(m.objects, name)
	m.version++
	o.ResourceVersion = strconv.Itoa(m.version)
	m.tell(func(s *Source) { s.dropService(o) })
}

// hear brings an agent some of what it has not heard.
func (a *modelAgent) hear(count int) {
	for ; count > 0 && len(a.queue) > 0; count-- {
		a.queue[0]()
		a.queue = a.queue[1:]
	}
}

// PatchServiceStatus is what an agent writes: it must give an address to nobody while somebody else
// has it, who is not known to share it.
func (a *modelAgent) PatchServiceStatus(_ context.Context, namespace, name string, patch []byte) error {
	m := a.model
	before := m.objects[service.Name{Namespace: namespace, Name: name}]
	gone := apierrors.NewConflict(schema.GroupResource{Resource: "services"}, name, errors.New("it is another one"))
	if before == nil {
		return apierrors.NewNotFound(schema.GroupResource{Resource: "services"}, name)
	}
	var p struct {
		Metadata metav1.ObjectMeta
		Status   v1.ServiceStatus
	}
	if err := json.Unmarshal(patch, &p); err != nil {
		m.t.Fatal(err)
	}
	if p.Metadata.ResourceVersion != before.ResourceVersion || p.Metadata.UID != before.UID {
		return gone
	}
	fails := !m.calm && m.random.IntN(10) == 0
	if fails && m.random.IntN(2) == 0 {
		return errors.New("nobody answers")
	}
	was, _ := FromService(before)
	after := before.DeepCopy()
	after.Status = p.Status
	now, _ := FromService(after)
	for _, ip := range now.Held {
		if slices.Contains(was.Held, ip) {
			continue
		}
		for _, o := range m.objects {
			other, _ := FromService(o)
			if other.Name == now.Name || !slices.Contains(other.Held, ip) {
				continue
			}
			// The agent may not know yet that the two no longer fit.
			seen := a.services[other.Name]
			if seen == nil || now.conflict(seen) != "" {
				m.t.Fatalf("%s is given to %s, and %s has it\n%s", ip, now.Name, other.Name, m.tail())
			}
		}
	}
	m.put(after)
	m.note("%s has %v", now.Name, now.Held)
	if fails {
		return errors.New("no answer, but it was done")
	}
	return nil
}

func (m *model) tail() string {
	text := ""
	for _, line := range m.history[max(0, len(m.history)-40):] {
		text += line + "\n"
	}
	return text
}

// lead has one agent lead.
func (m *model) lead(i int) {
	for j, a := range m.agents {
		if j == i && !a.leads {
			a.lapses++
		}
		a.leads = j == i
	}
	m.note("agent %d leads", i)
}

func (m *model) pass(a *modelAgent) {
	_, _ = a.control.pass(context.Background(), m.config) // what fails is tried again
}

var modelConfigs = []string{
	`pools: [{name: a, addresses: [192.0.2.1-192.0.2.4, "fd00::1-fd00::4"]}, {name: b, addresses: [192.0.2.9], autoAssign: false}]`,
	`pools: [{name: a, addresses: [192.0.2.1-192.0.2.3]}, {name: c, addresses: [192.0.2.4, "fd00::3-fd00::9"], serviceSelector: {tier: web}}]`,
	`{defaultClass: true, pools: [{name: a, addresses: [192.0.2.3-192.0.2.6, "fd00::1"], namespaces: [default]}]}`,
}

// user does something to a Service.
func (m *model) user() {
	r := m.random
	name := service.Name{Namespace: "default", Name: fmt.Sprintf("s%d", r.IntN(8))}
	if r.IntN(8) == 0 {
		name.Namespace = "other"
	}
	o := m.objects[name]
	switch {
	case o != nil && r.IntN(5) == 0:
		m.note("%s is deleted", name)
		m.remove(name)
		return
	case o != nil:
		o = o.DeepCopy()
	default:
		o = &v1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name, UID: types.UID(strconv.Itoa(m.version)), CreationTimestamp: metav1.Unix(int64(r.IntN(20)), 0)}}
	}
	if r.IntN(3) == 0 || len(o.Spec.IPFamilies) == 0 {
		o.Spec.Type = [...]v1.ServiceType{v1.ServiceTypeLoadBalancer, v1.ServiceTypeLoadBalancer, v1.ServiceTypeClusterIP}[r.IntN(3)]
		class := []string{Class, Class, "x/y"}[r.IntN(3)]
		o.Spec.LoadBalancerClass = &class
		if r.IntN(4) == 0 {
			o.Spec.LoadBalancerClass = nil
		}
		o.Spec.IPFamilies = [][]v1.IPFamily{{v1.IPv4Protocol}, {v1.IPv6Protocol}, {v1.IPv4Protocol, v1.IPv6Protocol}}[r.IntN(3)]
		policy := []v1.IPFamilyPolicy{v1.IPFamilyPolicyPreferDualStack, v1.IPFamilyPolicyRequireDualStack}[r.IntN(2)]
		o.Spec.IPFamilyPolicy = &policy
	}
	o.Spec.Ports = []v1.ServicePort{{Port: int32(1 + r.IntN(3))}}
	o.Annotations, o.Labels = map[string]string{}, map[string]string{}
	if r.IntN(2) == 0 {
		o.Annotations[AnnotationShare] = []string{"k", "l"}[r.IntN(2)]
	}
	if r.IntN(4) == 0 {
		o.Annotations[AnnotationIPs] = []string{"192.0.2.1", "192.0.2.9", "192.0.2.4,fd00::3", "192.0.2.77"}[r.IntN(4)]
	}
	if r.IntN(2) == 0 {
		o.Labels["tier"] = "web"
	}
	o.Spec.ExternalTrafficPolicy = []v1.ServiceExternalTrafficPolicy{v1.ServiceExternalTrafficPolicyCluster, v1.ServiceExternalTrafficPolicyLocal}[r.IntN(2)]
	m.note("%s is %s of class %v, ports %v, %v %v", name, o.Spec.Type, o.Spec.LoadBalancerClass, o.Spec.Ports[0].Port, o.Annotations, o.Labels)
	m.put(o)
}

// settle lets everything be heard and done, and looks at what has come of it.
func (m *model) settle() {
	m.calm = true
	defer func() { m.calm = false }()
	for range 12 {
		for _, a := range m.agents {
			a.hear(len(a.queue))
			m.pass(a)
		}
	}
	var all []*Service
	holders := map[netip.Addr][]*Service{}
	for _, o := range m.objects {
		s, _ := FromService(o)
		all = append(all, s)
		if m.config.Ours(s) {
			for _, ip := range s.Held {
				holders[ip] = append(holders[ip], s)
				if p := m.config.Pool(ip); p == nil || !p.Admits(s) {
					m.t.Fatalf("%s has %s\n%s", s.Name, ip, m.tail())
				}
			}
		}
	}
	for ip, of := range holders {
		for i, s := range of {
			for _, o := range of[:i] {
				if reason := s.conflict(o); reason != "" {
					m.t.Fatalf("%s: %s and %s: %s\n%s", ip, s.Name, o.Name, reason, m.tail())
				}
			}
		}
	}
	for _, d := range Allocate(m.config, all) {
		if d.Changes() {
			m.t.Fatalf("%s has %v, and is to have %v, though nothing happens\n%s", d.Service.Name, d.Service.Held, d.Addresses, m.tail())
		}
	}
}

// Whatever happens, in whatever order it is heard, no address has two holders.
func TestNeverTwoHolders(t *testing.T) {
	for seed := range uint64(300) {
		m := &model{t: t, random: rand.New(rand.NewPCG(seed, 1)), objects: map[service.Name]*v1.Service{}, config: config(t, modelConfigs[0])}
		for i := range m.agents {
			a := &modelAgent{Source: NewSource(nil, service.NewWatch(nil, slog.New(slog.DiscardHandler))), model: m, control: NewController()}
			a.control.Services, a.control.Writer, a.control.Leader, a.control.Reporter, a.control.Log = a, a, a, a, slog.New(slog.DiscardHandler)
			a.control.writers = 1 // the model is no real API server
			m.agents[i] = a
		}
		m.lead(0)
		for range 150 {
			switch m.random.IntN(12) {
			case 0:
				m.lead(m.random.IntN(2))
			case 1:
				if m.random.IntN(4) == 0 {
					m.config = config(t, modelConfigs[m.random.IntN(len(modelConfigs))])
					m.note("the pools are others")
				}
			case 2:
				m.settle()
			case 3, 4, 5:
				m.user()
			default:
				a := m.agents[m.random.IntN(2)]
				a.hear(m.random.IntN(4))
				m.pass(a)
			}
		}
		m.settle()
	}
}
