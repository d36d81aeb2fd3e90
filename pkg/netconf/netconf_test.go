package netconf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/cni"
)

// parseText reads a configuration whose other keys are in order.
func parseText(text, args string) (*Config, *Arguments, error) {
	return Parse(&cni.Request{Command: "ADD", Version: "1.0.0", Network: "net", Config: []byte(text), Args: args})
}

const ranges = `"ipam": {"ranges": [[{"subnet": "10.1.2.0/24"}]]}`

// mapping is a configuration in which the runtime asks for ports.
func mapping(mappings ...string) string {
	return `{"runtimeConfig": {"portMappings": [{` + strings.Join(mappings, "}, {") + `}]}, ` + ranges + `}`
}

// What is asked for of ports comes out as it is meant.
func TestPorts(t *testing.T) {
	c, _, err := parseText(mapping(
		`"hostPort": 8080, "containerPort": 80, "protocol": "TCP"`, `"hostPort": 8080, "containerPort": 80`, // the same
		`"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "::ffff:192.0.2.1"`,
		`"hostPort": 53, "containerPort": 5353, "protocol": "SCTP", "hostIP": "::"`,
	), "")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c.Ports.Mappings), "[8080/tcp 192.0.2.1:53/udp [::]:53/sctp]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if c.Ports.KeepSource || c.Ports.MasqueradeAll {
		t.Errorf("%+v", c.Ports)
	}
	c, _, err = parseText(`{"snat": false, "masqAll": true, "markMasqBit": 5, "backend": "nftables", "conditionsV4": [], `+ranges+`}`, "")
	if err != nil || !c.Ports.KeepSource || !c.Ports.MasqueradeAll || !c.Ports.IsZero() {
		t.Errorf("%v, %+v", err, c)
	}
}

func TestBadConfigurations(t *testing.T) {
	for _, c := range []struct {
		config, args string
		code         uint
		want         []string // in message or details
	}{
		{config: `{`, code: 6, want: []string{"unexpected end of JSON input"}},
		{config: `[]`, code: 6},
		{config: `{"mtu": 67, ` + ranges + `}`, code: 7, want: []string{"mtu", "67", "68 to 65535"}},
		{config: `{"mtu": 65536, ` + ranges + `}`, code: 7, want: []string{"mtu", "65536"}},
		{config: `{"mtu": -1, ` + ranges + `}`, code: 7, want: []string{"mtu", "-1"}},
		{config: `{"mtu": "1500", ` + ranges + `}`, code: 7, want: []string{"mtu", `"1500"`}},
		{config: `{"clsact": "yes", ` + ranges + `}`, code: 6, want: []string{"clsact"}},
		{config: `{"mtu": 1.5, ` + ranges + `}`, code: 7, want: []string{"mtu", "1.5"}},
		{config: `{"ipMasq": "yes", ` + ranges + `}`, code: 6, want: []string{"ipMasq", "string"}},
		{config: `{"hostInterfacePrefix": "", ` + ranges + `}`, code: 7, want: []string{"hostInterfacePrefix", `""`}},
		{config: `{"hostInterfacePrefix": "eightlet", ` + ranges + `}`, code: 7, want: []string{"hostInterfacePrefix", "eightlet"}},
		{config: `{"podDevice": "macvlan", ` + ranges + `}`, code: 7, want: []string{"podDevice", `"macvlan"`, "veth or netkit"}},
		{config: `{"podDevice": "auto", ` + ranges + `}`, code: 7, want: []string{"podDevice", `"auto"`, "veth or netkit"}},
		{config: `{"podDevice": "", ` + ranges + `}`, code: 7, want: []string{"podDevice", `""`}},
		{config: `{"hostInterfacePrefix": "a/b", ` + ranges + `}`, code: 7, want: []string{"hostInterfacePrefix", "a/b"}},
		{config: `{"stateDir": "run", ` + ranges + `}`, code: 7, want: []string{"stateDir", `"run"`, "absolute"}},
		{config: `{"stateDir": "/", ` + ranges + `}`, code: 7, want: []string{"stateDir"}},
		{config: `{"policies": "policies.json", ` + ranges + `}`, code: 7, want: []string{"policies", `"policies.json"`, "absolute"}},
		{config: `{"policies": {}, ` + ranges + `}`, code: 6, want: []string{"policies"}},
		{config: `{"nonMasqueradeCIDRs": ["10.0.0.0/8", "10.1.2.3/8"], ` + ranges + `}`, code: 7, want: []string{"nonMasqueradeCIDRs[1]", "10.1.2.3/8"}},
		{config: `{"dns": {"search": "x"}, ` + ranges + `}`, code: 7, want: []string{"dns", "search"}},
		{config: `{"logLevel": "loud", ` + ranges + `}`, code: 7, want: []string{"logLevel", "loud"}},
		{config: `{"logFile": "x.log", ` + ranges + `}`, code: 7, want: []string{"logFile", "x.log"}},
		{config: `{"prevResult": 7, ` + ranges + `}`, code: 7, want: []string{"prevResult", "7"}},
		{config: `{"prevResult": {"cniVersion": "9.0.0"}, ` + ranges + `}`, code: 7, want: []string{"prevResult", "9.0.0"}},
		{config: `{"runtimeConfig": {"mac": "x"}, ` + ranges + `}`, code: 7, want: []string{"runtimeConfig.mac", `"x"`}},
		{config: `{"args": {"cni": {"mac": "01:00:00:00:00:00"}}, ` + ranges + `}`, code: 7, want: []string{"args.cni.mac", "unicast"}},
		{config: `{"runtimeConfig": {"ips": ["10.1.2"]}, ` + ranges + `}`, code: 7, want: []string{"runtimeConfig.ips[0]", "10.1.2"}},
		{config: `{"args": {"cni": {"ips": ["fe80::1%eth0"]}}, ` + ranges + `}`, code: 7, want: []string{"args.cni.ips[0]", "fe80::1%eth0"}},
		{config: mapping(`"hostPort": 0, "containerPort": 80`), code: 7, want: []string{"runtimeConfig.portMappings[0].hostPort", "0", "1 to 65535"}},
		{config: mapping(`"hostPort": 70000, "containerPort": 80`), code: 7, want: []string{"portMappings[0].hostPort", "70000"}},
		{config: mapping(`"hostPort": 80, "containerPort": -1`), code: 7, want: []string{"portMappings[0].containerPort", "-1"}},
		{config: mapping(`"hostPort": 80`), code: 7, want: []string{"portMappings[0].containerPort", "0"}},
		{config: mapping(`"hostPort": "80", "containerPort": 80`), code: 6, want: []string{"hostPort", "string"}},
		{config: mapping(`"hostPort": 80, "containerPort": 80, "protocol": "icmp"`), code: 7, want: []string{"portMappings[0].protocol", `"icmp"`, "tcp, udp or sctp"}},
		{config: mapping(`"hostPort": 80, "containerPort": 80, "hostIP": "node"`), code: 7, want: []string{"portMappings[0].hostIP", `"node"`}},
		{config: mapping(`"hostPort": 80, "containerPort": 80, "hostIP": "fe80::1%eth0"`), code: 7, want: []string{"portMappings[0].hostIP", "fe80::1%eth0"}},
		{config: mapping(`"hostPort": 80, "containerPort": 80, "hostIP": "224.0.0.1"`), code: 7, want: []string{"portMappings[0].hostIP", "224.0.0.1"}},
		{config: mapping(`"hostPort": 80, "containerPort": 80`, `"hostPort": 80, "containerPort": 81, "hostIP": "10.0.0.1"`), code: 7, want: []string{"portMappings[1].hostPort", "80/tcp", "port 80"}},
		{config: `{"conditionsV4": ["-s", "10.0.0.0/8"], ` + ranges + `}`, code: 7, want: []string{"conditionsV4", "NetworkPolicy"}},
		{config: `{"conditionsV6": ["-s", "fd00::/8"], ` + ranges + `}`, code: 7, want: []string{"conditionsV6"}},
		{config: `{"markMasqBit": 32, ` + ranges + `}`, code: 7, want: []string{"markMasqBit", "32"}},
		{config: `{"markMasqBit": 3, "externalSetMarkChain": "KUBE-MARK-MASQ", ` + ranges + `}`, code: 7, want: []string{"markMasqBit", "externalSetMarkChain"}},
		{config: `{"backend": "ebpf", ` + ranges + `}`, code: 7, want: []string{"backend", `"ebpf"`}},
		{config: `{` + ranges + `}`, args: "IP=x", code: 7, want: []string{"CNI_ARGS IP", `"x"`}},
		{config: `{` + ranges + `}`, args: "IP", code: 4, want: []string{`"IP"`, "CNI_ARGS"}},
		{config: `{` + ranges + `}`, args: "A=B;C=D", code: 4, want: []string{"A=B", "C=D", "IgnoreUnknown"}},
		{config: `{` + ranges + `}`, args: "IgnoreUnknown=maybe", code: 4, want: []string{"maybe"}},
		{config: `{}`, code: 7, want: []string{"missing ipam"}},
		{config: `{"ipam": null}`, code: 7, want: []string{"missing ipam"}},
		{config: `{"ipam": []}`, code: 7, want: []string{"ipam"}},
		{config: `{"ipam": {}}`, code: 7, want: []string{"no IP ranges"}},
		{config: `{"ipam": {"type": "../evil"}}`, code: 7, want: []string{"ipam.type", "../evil"}},
		{config: `{"ipam": {"dataDir": "var/lib", "subnet": "10.0.0.0/24"}}`, code: 7, want: []string{"ipam.dataDir", "var/lib"}},
		{config: `{"ipam": {"subnet": "10.0.0.1/24"}}`, code: 7, want: []string{"10.0.0.1/24", "host bits"}},
		{config: `{"ipam": {"ranges": [[{"subnet": "10.0.0.0/24"}, {"subnet": "10.0.0.128/25"}]]}}`, code: 7, want: []string{"ranges[0][1]", "overlap"}},
		{config: `{"ipam": {"ranges": [[{"subnet": "10.0.0.0/24", "rangeEnd": "10.0.1.9"}]]}}`, code: 7, want: []string{"ranges[0][0]", "rangeEnd", "10.0.1.9"}},
		{config: `{"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "x"}]}}`, code: 7, want: []string{"ipam.routes[0]", `"x"`}},
		{config: `{"ipam": {"subnet": "10.0.0.0/24", "routes": [{}]}}`, code: 7, want: []string{"ipam.routes[0]", "dst"}},
		{config: `{"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0", "gw": "fe80::1"}]}}`, code: 7, want: []string{"gw", "family"}},
		{config: `{"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0", "mtu": -1}]}}`, code: 7, want: []string{"mtu", "negative"}},
		{config: `{"ipam": {"subnet": "10.0.0.0/24", "routes": [{"dst": "0.0.0.0/0", "scope": 256}]}}`, code: 7, want: []string{"scope", "255"}},
	} {
		_, _, err := parseText(c.config, c.args)
		var e *types.Error
		if !errors.As(err, &e) {
			t.Errorf("%s %s: error %v has no code", c.config, c.args, err)
			continue
		}
		if e.Code != c.code {
			t.Errorf("%s %s: code %d, want %d (%v)", c.config, c.args, e.Code, c.code, err)
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s %s: error %q lacks %q", c.config, c.args, err, want)
			}
		}
	}
}

func TestConfiguration(t *testing.T) {
	c, a, err := parseText(`{"mtu": 1400, "ipMasq": true, "nonMasqueradeCIDRs": ["10.0.0.0/8"], "hostInterfacePrefix": "pod",
		"stateDir": "/run/x/", "policies": "/var/lib/x.json", "dns": {"nameservers": []}, "unknown": {}, "capabilities": {"ips": true},
		"runtimeConfig": {"ips": ["10.1.2.9/24", "::ffff:10.1.3.9"], "ipRanges": [[{"subnet": "10.1.3.0/24"}]]},
		"ipam": {"type": "host-local", "subnet": "10.1.2.0/24", "routes": [{"dst": "192.168.1.1/16"}], "ranges": [[{"subnet": "fd00::/64"}]]}}`,
		"IP=10.1.2.77;K8S_POD_NAMESPACE=ns;K8S_POD_NAME=na\nme;K8S_POD_UID=u;K8S_POD_INFRA_CONTAINER_ID=i")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(c.MTU, c.IPMasq, c.NonMasqueradeCIDRs, c.HostInterfacePrefix, c.StateDirectory, c.Policies, c.DNS.Nameservers,
		c.IPAM.Type, c.IPAM.DataDirectory, c.IPAM.Pool, c.IPAM.Requested, c.IPAM.Routes[0].Dst.String(), a.Pod(), c.PrevResult, c.ValidAttachments)
	// The capability's ranges come first, as with host-local; CNI_ARGS does not
	// count beside it; what is no text for an alias is replaced.
	want := "1400 true [10.0.0.0/8] pod /run/x/ /var/lib/x.json []  /run/x/ipam " +
		"10.1.3.1-10.1.3.254; 10.1.2.1-10.1.2.254; fd00::1-fd00::ffff:ffff:ffff:ffff [10.1.2.9 10.1.3.9] 192.168.0.0/16 ns/na?me <nil> <nil>\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDefaults(t *testing.T) {
	c, a, err := parseText(`{`+ranges+`}`, "")
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintln(c.MTU, c.IPMasq, c.HostInterfacePrefix, c.StateDirectory, c.Policies, c.DNS, c.Log, c.IPAM.Type, c.IPAM.DataDirectory, c.IPAM.Requested, a.Pod() == "")
	if want := "0 false veth /run/flatnet  <nil> {error }  /run/flatnet/ipam [] true\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestListOfValidAttachments(t *testing.T) {
	for text, want := range map[string]string{
		``:                                   "absent",
		`"cni.dev/valid-attachments": null,`: "absent",
		`"cni.dev/valid-attachments": [],`:   "0",
		`"cni.dev/attachments": [],`:         "0",
		`"cni.dev/attachments": [{}, {}],`:   "2",
		`"cni.dev/valid-attachments": [{}], "cni.dev/attachments": [],`: "1",
	} {
		c, _, err := parseText(`{`+text+ranges+`}`, "")
		got := "absent"
		if err == nil && c.ValidAttachments != nil {
			got = fmt.Sprint(len(*c.ValidAttachments))
		}
		if err != nil || got != want {
			t.Errorf("%s: %s, %v; want %s", text, got, err, want)
		}
	}
}

// Old versions have one place for an address of each family.
func TestSeveralSetsOfAFamily(t *testing.T) {
	config := []byte(`{"ipam": {"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]}}`)
	for v, allowed := range map[string]bool{"0.2.0": false, "0.3.0": true, "1.1.0": true} {
		_, _, err := Parse(&cni.Request{Command: "ADD", Version: v, Network: "net", Config: config})
		if (err == nil) != allowed {
			t.Errorf("version %s: %v", v, err)
		}
	}
}

// typedOrNone fails where an error is anything but one typed CNI error.
func typedOrNone(t *testing.T, err error) {
	t.Helper()
	var e *types.Error
	if err != nil && (!errors.As(err, &e) || e.Msg == "" || e.Code == 0) {
		t.Errorf("error without code or text: %#v", err)
	}
}

func FuzzConfiguration(f *testing.F) {
	f.Add(`{"ipam": {"ranges": [[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.2.5", "gateway": "10.1.2.1"}]], "routes": [{"dst": "::/0", "gw": "fe80::1", "table": 7}]}}`)
	f.Add(`{"mtu": 1400, "dns": {"search": ["a"]}, "runtimeConfig": {"ips": ["fd00::5"], "mac": "02:00:00:00:00:01"}, "ipam": {"subnet": "fd00::/64"}}`)
	f.Add(`{"ingressRate": 8, "ingressBurst": 8, "unshapedSubnets": ["10.0.0.0/8"], "runtimeConfig": {"bandwidth": {"egressRate": 1e6, "egressBurst": -1, "shapedSubnets": ["::/0"]}}, "ipam": {"subnet": "fd00::/64"}}`)
	f.Add(mapping(`"hostPort": 8080, "containerPort": 80, "protocol": "udp", "hostIP": "::1"`))
	f.Add(`{"snat": false, "masqAll": true, "markMasqBit": 5, "conditionsV4": ["-s"], "backend": "iptables", ` + ranges + `}`)
	f.Add(`{"cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}], "ipam": {"type": "static"}}`)
	f.Fuzz(func(t *testing.T, text string) {
		for _, command := range []string{"ADD", "DEL", "GC"} {
			_, _, err := Parse(&cni.Request{Command: command, Version: "1.1.0", Network: "net", Config: []byte(text)})
			typedOrNone(t, err)
		}
	})
}

func FuzzPrevResult(f *testing.F) {
	f.Add(`{"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x", "mac": "02:00:00:00:00:01"}], "ips": [{"address": "10.1.2.3/24", "interface": 0}]}`, "1.1.0")
	f.Add(`{"cniVersion": "0.2.0", "ip4": {"ip": "10.1.2.3/24", "routes": [{"dst": "0.0.0.0/0"}]}}`, "0.2.0")
	f.Add(`{"ips": [{"version": "4", "address": "10.1.2.3/24"}]}`, "0.3.1")
	f.Fuzz(func(t *testing.T, text, version string) {
		config := []byte(`{` + ranges + `, "prevResult": ` + text + `}`)
		_, _, err := Parse(&cni.Request{Command: "CHECK", Version: version, Network: "net", Config: config})
		typedOrNone(t, err)
	})
}

func FuzzArguments(f *testing.F) {
	f.Add("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;IP=10.1.2.3;MAC=02:00:00:00:00:01")
	f.Add(";=;a==b")
	f.Fuzz(func(t *testing.T, text string) {
		a, err := ParseArguments(text)
		typedOrNone(t, err)
		for _, r := range a.Pod() {
			if r <= ' ' || r > '~' {
				t.Errorf("%q is not fit for an alias", a.Pod())
			}
		}
	})
}
