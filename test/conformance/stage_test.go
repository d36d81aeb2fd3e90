package conformance

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// object is a JSON object in the making.
type object = map[string]any

// network is the name in a stage's configuration.
const network = "conformance"

// The addresses that a stage's pods get, and those of its node.
const (
	subnet4, gateway4 = "10.1.2.0/24", "10.1.2.1"
	subnet6, gateway6 = "fd00:10:1:2::/64", "fd00:10:1:2::1"
	node4, node6      = "172.30.0.1", "fd00:30::1"
	world4, world6    = "172.30.0.254", "fd00:30::fe"
)

// stage is where one item plays: a node with an uplink, state directories and
// pods that nothing else uses.
type stage struct {
	plugin  plugin
	lab     *netlab.Lab
	lan     *netlab.Segment
	node    *netlab.Node
	state   string // what the plugin may write below
	scratch string // what the suite writes below
	cleanup func(func())
}

func newStage(t *testing.T, p plugin) *stage {
	s := &stage{plugin: p, lab: netlab.Start(t), state: t.TempDir(), scratch: t.TempDir(), cleanup: t.Cleanup}
	s.lan = s.lab.Segment("lan")
	s.node = s.lab.Node("node", s.lan.Port(node4+"/24", node6+"/64"))
	s.expect(s.node.AddRoute("default", world4))
	s.expect(s.node.AddRoute("default", world6))
	// What a fresh machine has, whatever the one has on which this runs.
	s.expect(s.node.SetSysctl("net/ipv4/ip_forward", "0"))
	s.expect(s.node.SetSysctl("net/ipv6/conf/all/forwarding", "0"))
	return s
}

// failf ends the item: the plugin does not keep the rule.
func (s *stage) failf(format string, args ...any) {
	panic(verdict{fail, fmt.Sprintf(format, args...)})
}

// skipf ends the item: there is nothing to judge, and why.
func (s *stage) skipf(format string, args ...any) {
	panic(verdict{notApplicable, fmt.Sprintf(format, args...)})
}

// expect ends the item if err is an error.
func (s *stage) expect(err error) {
	if err != nil {
		s.failf("%v", err)
	}
}

// dataDir is where the configuration tells the IPAM plugin to keep reservations.
func (s *stage) dataDir() string { return filepath.Join(s.state, "ipam") }

// conf is a configuration of the plugin with one range of IPv4 addresses.
func (s *stage) conf(version string) object {
	return object{
		"cniVersion": version,
		"name":       network,
		"type":       s.plugin.name(),
		"stateDir":   filepath.Join(s.state, "plugin"),
		"ipam": object{
			"type":    "host-local",
			"dataDir": s.dataDir(),
			"ranges":  [][]object{{{"subnet": subnet4}}},
			"routes":  []object{{"dst": "0.0.0.0/0"}},
		},
	}
}

// dual is a configuration with a range of each family.
func (s *stage) dual(version string) object {
	conf := s.conf(version)
	ipam := conf["ipam"].(object)
	ipam["ranges"] = [][]object{{{"subnet": subnet4}}, {{"subnet": subnet6}}}
	ipam["routes"] = []object{{"dst": "0.0.0.0/0"}, {"dst": "::/0"}}
	return conf
}

// single is a configuration whose range holds just one address.
func (s *stage) single(version string) object {
	conf := s.conf(version)
	conf["ipam"].(object)["ranges"] = [][]object{{{"subnet": subnet4, "rangeStart": "10.1.2.5", "rangeEnd": "10.1.2.5"}}}
	return conf
}

// second is a configuration for a pod's second interface in the same network:
// it has a subnet of its own and leaves the default route to the first.
func (s *stage) second() object {
	return withIPAM(s.conf("1.1.0"), object{
		"ranges": [][]object{{{"subnet": "10.3.3.0/24"}}},
		"routes": []object{{"dst": "192.0.2.0/24"}},
	})
}

// with returns a copy of an object with some keys changed; nil removes one.
func with(conf object, changes object) object {
	changed := maps.Clone(conf)
	for key, value := range changes {
		if value == nil {
			delete(changed, key)
		} else {
			changed[key] = value
		}
	}
	return changed
}

// withIPAM is [with] for the "ipam" section.
func withIPAM(conf object, changes object) object {
	return with(conf, object{"ipam": with(conf["ipam"].(object), changes)})
}

// attachment is a pod's interface, existing or to be made.
type attachment struct {
	id, netns, ifname, args string
	space                   *netlab.Namespace
}

// pod makes an empty pod and describes its first attachment.
func (s *stage) pod(name string) attachment {
	space := s.lab.Pod(name)
	return attachment{id: containerID(), netns: space.Path, ifname: "eth0", space: space}
}

// vanish removes the path of a pod's namespace, while the namespace itself goes
// on to exist, as it does while a process is left in it.
func (s *stage) vanish(a attachment) {
	last, err := os.Open(a.netns)
	s.expect(err)
	s.cleanup(func() { last.Close() })
	s.expect(a.space.Delete())
}

// containerID makes an id as containerd does.
func containerID() string {
	raw := make([]byte, 32)
	rand.Read(raw)
	return hex.EncodeToString(raw)
}

// via is the attachment with another CNI_NETNS.
func (a attachment) via(netns string) attachment {
	a.netns = netns
	return a
}

// named is the attachment of the same container with another interface.
func (a attachment) named(ifname string) attachment {
	a.ifname = ifname
	return a
}

// request makes the execution of a verb that a runtime would make.
func (s *stage) request(verb string, a attachment, conf object) request {
	stdin, err := json.Marshal(conf)
	if err != nil {
		panic(err)
	}
	return request{
		path: s.plugin.path,
		env: map[string]string{
			"CNI_COMMAND":     verb,
			"CNI_CONTAINERID": a.id,
			"CNI_NETNS":       a.netns,
			"CNI_IFNAME":      a.ifname,
			"CNI_ARGS":        a.args,
			"CNI_PATH":        strings.Join(s.plugin.search, ":"),
			"PATH":            os.Getenv("PATH"),
		},
		stdin: stdin,
	}
}

// run executes a request on the stage's node.
func (s *stage) run(r request) reply {
	var out reply
	err := s.node.Do(func() error {
		if r.confine != nil {
			if err := errors.Join(ownMounts(), r.confine()); err != nil {
				return err
			}
		}
		out = r.run()
		return nil
	})
	if err != nil {
		panic(err)
	}
	return out
}

// exec makes and executes a request.
func (s *stage) exec(verb string, a attachment, conf object) reply {
	return s.run(s.request(verb, a, conf))
}

// quiet demands that a reply is success without a word.
func (s *stage) quiet(what string, r reply) {
	if r.broken != nil || r.exit != 0 || r.stdout != "" {
		s.failf("%s: %v", what, r)
	}
}

// fails demands that a reply is failure with one error object.
func (s *stage) fails(what string, r reply) cniError {
	e, err := r.failure()
	if err != nil {
		s.failf("%s: %v", what, err)
	}
	return e
}

// failsWith demands failure with a code.
func (s *stage) failsWith(what string, code uint, r reply) cniError {
	e := s.fails(what, r)
	if e.Code != code {
		s.failf("%s: code %d instead of %d: %v", what, e.Code, code, r)
	}
	return e
}

// add demands that ADD succeeds.
func (s *stage) add(a attachment, conf object) result {
	return s.added(s.exec("ADD", a, conf))
}

// added demands that a reply is that of a successful ADD.
func (s *stage) added(r reply) result {
	if r.broken != nil || r.exit != 0 {
		s.failf("ADD: %v", r)
	}
	res, err := parseResult(r.stdout)
	if err != nil {
		s.failf("ADD: %v: %v", err, r)
	}
	return res
}

// attach makes a pod and demands that ADD succeeds for it.
func (s *stage) attach(name string, conf object) (attachment, result) {
	a := s.pod(name)
	return a, s.add(a, conf)
}

// del demands that DEL succeeds.
func (s *stage) del(a attachment, conf object) {
	s.quiet("DEL", s.exec("DEL", a, conf))
}

// check executes CHECK with a result of ADD.
func (s *stage) check(a attachment, conf object, res result) reply {
	return s.exec("CHECK", a, with(conf, object{"prevResult": res.raw}))
}

// gc executes GC as libcni does, with the attachments that are still valid.
func (s *stage) gc(conf object, valid []attachment) reply {
	list := []object{} // not nil: an empty list is not an absent one
	for _, a := range valid {
		list = append(list, object{"containerID": a.id, "ifname": a.ifname})
	}
	return s.collect(with(conf, object{"cni.dev/valid-attachments": list, "cni.dev/attachments": list}))
}

// collect executes GC with a configuration as it is.
func (s *stage) collect(conf object) reply {
	return s.exec("GC", attachment{}, conf)
}

// world makes another machine on the node's segment, which knows that pods are
// behind the node.
func (s *stage) world() *netlab.Node {
	world := s.lab.Node("world", s.lan.Port(world4+"/24", world6+"/64"))
	s.expect(world.AddRoute(subnet4, node4))
	s.expect(world.AddRoute(subnet6, node6))
	return world
}

// of returns the addresses of one family, of which there must be one at least.
func (s *stage) of(res result, ipv6 bool) netip.Addr {
	for _, ip := range res.IPs {
		if ip.Address.Addr().Is6() == ipv6 {
			return ip.Address.Addr()
		}
	}
	s.failf("the result has no address where IPv6 is %v: %s", ipv6, res.raw)
	return netip.Addr{}
}
