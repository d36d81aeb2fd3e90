package loadbalancer

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/service"
)

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, addr(text))
	}
	return all
}

func config(t *testing.T, text string) *Config {
	t.Helper()
	c, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// svc is a Service that was created so many seconds after the others' beginning.
func svc(name string, age int, change ...func(*Service)) *Service {
	s := &Service{Name: service.Name{Namespace: "default", Name: name}, UID: name, Created: time.Unix(int64(age), 0), LoadBalancer: true, HasClass: true,
		Families: []Family{IPv4}, Ports: []Port{{service.TCP, 80}}}
	for _, f := range change {
		f(s)
	}
	return s
}

func holding(texts ...string) func(*Service) { return func(s *Service) { s.Held = addrs(texts...) } }
func wanting(texts ...string) func(*Service) { return func(s *Service) { s.Wanted = addrs(texts...) } }
func sharing(key string, port uint16) func(*Service) {
	return func(s *Service) { s.ShareKey, s.Ports = key, []Port{{service.TCP, port}} }
}
func dual(required bool) func(*Service) {
	return func(s *Service) { s.Families, s.Required = []Family{IPv4, IPv6}, required }
}
func with(f func(*Service)) func(*Service) { return f }

// told is a decision in words.
func told(d Decision) string {
	text := strings.Trim(fmt.Sprint(d.Addresses), "[]")
	if d.Waits != "" {
		text += " waits: " + d.Waits
	}
	if len(d.Lost) > 0 {
		text += " lost: " + strings.Join(d.Lost, "; ")
	}
	return strings.TrimSpace(text)
}

const two = `pools: [{name: a, addresses: [192.0.2.1-192.0.2.2]}]`

func TestAllocate(t *testing.T) {
	for _, test := range []struct {
		name, config string
		services     []*Service
		want         map[string]string
	}{
		{"the first free ones, the oldest first", two, []*Service{svc("y", 2), svc("x", 1), svc("z", 3)},
			map[string]string{"x": "192.0.2.1", "y": "192.0.2.2", "z": "waits: IPv4: all addresses of pool a are taken"}},
		{"who has one keeps it", two, []*Service{svc("x", 1), svc("y", 2, holding("192.0.2.1"))},
			map[string]string{"x": "192.0.2.2", "y": "192.0.2.1"}},
		{"of two with one, the older keeps it", two, []*Service{svc("x", 1, holding("192.0.2.1")), svc("y", 2, holding("192.0.2.1"))},
			map[string]string{"x": "192.0.2.1", "y": "192.0.2.2 lost: 192.0.2.1: Service default/x has it, and not both have the annotation flatnet.io/allow-shared-ip"}},
		{"what is asked for", two, []*Service{svc("x", 1, wanting("192.0.2.2")), svc("y", 2, wanting("192.0.2.2")), svc("z", 3, wanting("192.0.2.9"))},
			map[string]string{"x": "192.0.2.2", "y": "waits: IPv4: 192.0.2.2, which the Service asks for: Service default/x has it, and not both have the annotation flatnet.io/allow-shared-ip",
				"z": "waits: IPv4: 192.0.2.9, which the Service asks for: it is in no pool"}},
		{"another one is asked for: both are locked until the first is written", two, []*Service{svc("x", 1, holding("192.0.2.1"), wanting("192.0.2.2")), svc("y", 2, wanting("192.0.2.1"))},
			map[string]string{"x": "192.0.2.2 lost: 192.0.2.1: the Service asks for another address", "y": "waits: IPv4: 192.0.2.1, which the Service asks for: default/x is giving it back"}},
		{"no longer a load balancer", two, []*Service{svc("x", 1, holding("192.0.2.1"), with(func(s *Service) { s.LoadBalancer = false })), svc("y", 2)},
			map[string]string{"x": "lost: it is no longer of type LoadBalancer", "y": "192.0.2.2"}},
		{"somebody else's address is left alone", two, []*Service{svc("x", 1, holding("192.0.2.1"), with(func(s *Service) { s.HasClass, s.OtherClass = false, "x/y" })), svc("y", 2)},
			map[string]string{"y": "192.0.2.2"}},
		{"without class, not without being told", two, []*Service{svc("x", 1, with(func(s *Service) { s.HasClass = false }))}, map[string]string{}},
		{"without class, as the file says", "defaultClass: true\n" + two, []*Service{svc("x", 1, with(func(s *Service) { s.HasClass = false }))}, map[string]string{"x": "192.0.2.1"}},
		{"the pool is gone", `pools: [{name: b, addresses: [198.51.100.1]}]`, []*Service{svc("x", 1, holding("192.0.2.1"))},
			map[string]string{"x": "198.51.100.1 lost: 192.0.2.1: it is in no pool"}},
		{"sharing", two, []*Service{svc("x", 1, sharing("k", 80)), svc("y", 2, sharing("k", 443)), svc("z", 3, sharing("k", 80)), svc("w", 4, sharing("j", 1))},
			map[string]string{"x": "192.0.2.1", "y": "192.0.2.1", "z": "192.0.2.2", "w": "waits: IPv4: all addresses of pool a are taken"}},
		{"one of two that share moves, the other stays", two, []*Service{svc("x", 1, sharing("k", 80), holding("192.0.2.1"), wanting("192.0.2.2")), svc("y", 2, sharing("k", 443), holding("192.0.2.1"))},
			map[string]string{"x": "192.0.2.2 lost: 192.0.2.1: the Service asks for another address", "y": "192.0.2.1"}},
		{"Local shares only with the same pods", two, []*Service{svc("x", 1, sharing("k", 80), with(func(s *Service) { s.Backend = "pods,app=x" })), svc("y", 2, sharing("k", 81)), svc("z", 3, sharing("k", 82), with(func(s *Service) { s.Backend = "pods,app=x" }))},
			map[string]string{"x": "192.0.2.1", "y": "192.0.2.2", "z": "192.0.2.1"}},
		{"both families", `pools: [{name: a, addresses: [192.0.2.1, "fd00::1"]}]`, []*Service{svc("x", 1, dual(true)), svc("y", 2, dual(true))},
			map[string]string{"x": "192.0.2.1 fd00::1", "y": "waits: IPv4: all addresses of pool a are taken; IPv6: all addresses of pool a are taken"}},
		{"both required, one is there: none", two, []*Service{svc("x", 1, dual(true))},
			map[string]string{"x": "waits: IPv6: no pool has such addresses for a Service of its namespace, with its labels"}},
		{"both preferred, one is there", two, []*Service{svc("x", 1, dual(false))}, map[string]string{"x": "192.0.2.1"}},
		{"a family that the Service no longer has", `pools: [{name: a, addresses: [192.0.2.1, "fd00::1"]}]`, []*Service{svc("x", 1, holding("192.0.2.1", "fd00::1"))},
			map[string]string{"x": "192.0.2.1 lost: fd00::1: the Service does not have IPv6"}},
		{"for whom the pool is", `pools: [{name: a, addresses: [192.0.2.1], namespaces: [shop]}, {name: b, addresses: [192.0.2.2], serviceSelector: {tier: web}}, {name: c, addresses: [192.0.2.3], autoAssign: false}]`,
			[]*Service{svc("x", 1), svc("y", 2, with(func(s *Service) { s.Labels = map[string]string{"tier": "web"} })), svc("z", 3, with(func(s *Service) { s.Name.Namespace = "shop" })), svc("w", 4, with(func(s *Service) { s.Pool = "c" })), svc("v", 5, with(func(s *Service) { s.Pool = "d" }))},
			map[string]string{"x": "waits: IPv4: no pool has such addresses for a Service of its namespace, with its labels", "y": "192.0.2.2", "z": "192.0.2.1", "w": "192.0.2.3", "v": "waits: IPv4: there is no pool d, which the Service asks for"}},
		{"what cannot be read", two, []*Service{svc("x", 1, with(func(s *Service) { s.Unread = "annotation: no" }))}, map[string]string{"x": "waits: annotation: no"}},
	} {
		got := map[string]string{}
		for _, d := range Allocate(config(t, test.config), test.services) {
			got[d.Service.Name.Name] = told(d)
		}
		for _, s := range test.services {
			name := s.Name.Name
			if got[name] != test.want[name] {
				t.Errorf("%s: %s: %s\nwant %s", test.name, name, got[name], test.want[name])
			}
		}
	}
}

// apply writes a decision, and returns the Services after it.
func apply(services []*Service, decisions []Decision) []*Service {
	services = slices.Clone(services)
	for _, d := range decisions {
		i := slices.Index(services, d.Service)
		s := *d.Service
		s.Held = d.Addresses
		services[i] = &s
	}
	return services
}

// A thousand Services and a full pool take little, and what was decided is not decided
// again.
func TestAllocateOften(t *testing.T) {
	c := config(t, `pools: [{name: a, addresses: [10.0.0.0/22, "fd00::/64"]}]`)
	var all []*Service
	for i := range 1500 {
		all = append(all, svc(fmt.Sprintf("s%04d", i), i, dual(false)))
	}
	all = apply(all, Allocate(c, all))
	held := map[netip.Addr]bool{}
	for _, s := range all {
		for _, ip := range s.Held {
			if held[ip] {
				t.Fatalf("%s is two Services'", ip)
			}
			held[ip] = true
		}
	}
	if len(held) != 1024+1500 {
		t.Errorf("%d addresses are held", len(held))
	}
	for _, d := range Allocate(c, all) {
		if d.Changes() {
			t.Fatalf("%s has %v and is to have %v", d.Service.Name, d.Service.Held, d.Addresses)
		}
	}
}

func BenchmarkAllocate(b *testing.B) {
	c, _ := Parse([]byte(`pools: [{name: a, addresses: [10.0.0.0/16]}]`))
	var all []*Service
	for i := range 1000 {
		all = append(all, svc(fmt.Sprintf("s%04d", i), i))
	}
	all = apply(all, Allocate(c, all))
	for b.Loop() {
		Allocate(c, all)
	}
}

// An address that is shared is one; what is in no pool, or somebody else's, is none.
func TestHeldAreCounted(t *testing.T) {
	c := config(t, "pools:\n- {name: a, addresses: [192.0.2.0/28, \"2001:db8::/124\"]}\n- {name: b, addresses: [192.0.2.16/28]}\n")
	foreign := svc("foreign", 4, holding("192.0.2.3"))
	foreign.HasClass, foreign.OtherClass = false, "example.com/other"
	s := CountHeld(c, []*Service{
		svc("one", 0, sharing("k", 80), holding("192.0.2.1", "2001:db8::1")), svc("two", 1, sharing("k", 81), holding("192.0.2.1")),
		svc("three", 2, holding("192.0.2.2")), svc("four", 3, holding("203.0.113.1")), foreign, svc("five", 5, holding("192.0.2.17")),
	})
	if got, want := fmt.Sprint(s.InUse), "map[a:map[IPv4:2 IPv6:1] b:map[IPv4:1]]"; got != want {
		t.Errorf("in use are %s, want %s", got, want)
	}
}
