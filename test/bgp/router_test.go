package bgp_test

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/test/netlab"
)

// router is a machine with BIRD or FRR.
type router struct {
	*netlab.Node
	name, directory string
	bird            bool
	asn             int
	rack            int // 0 or 1
	host            int // last number of its addresses
	processes       []*process
	extra           string // configuration that a test adds, and is in place of nothing else
	node            string // what is said besides of the session with the rack's node
	filter          string // BIRD: the export filter towards the node, per family
}

type process struct {
	cmd  *exec.Cmd
	wait func() error
}

func (r *router) file(name string) string { return filepath.Join(r.directory, name) }

func (r *router) run(t testing.TB, program string, arguments ...string) {
	t.Helper()
	log, err := os.OpenFile(r.file("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	must(t, err)
	defer log.Close()
	cmd := exec.Command(program, arguments...)
	cmd.Stdout, cmd.Stderr = log, log
	wait, err := r.Node.Start(cmd)
	must(t, err)
	r.processes = append(r.processes, &process{cmd, wait})
}

// start starts the router's programs.
func (r *router) start(t testing.TB) {
	t.Helper()
	r.write(t)
	if r.bird {
		r.run(t, bird, "-f", "-c", r.file("conf"), "-s", r.file("socket"))
		return
	}
	// Without zebra, bgpd knows of no next hop.
	r.startDaemon(t, "zebra")
	await(t, "zebra of "+r.name, func() error {
		_, err := os.Stat(r.file("zserv"))
		return err
	})
	r.startDaemon(t, "bgpd")
}

func (r *router) startDaemon(t testing.TB, daemon string) {
	r.run(t, frr+daemon, "-f", r.file("conf"), "-i", r.file(daemon+".pid"), "-z", r.file("zserv"),
		"--vty_socket", r.directory, "-u", "frr", "-g", "frr", "--log", "file:"+r.file("log"))
}

// kill ends the router's programs without a word.
func (r *router) kill() {
	for _, p := range r.processes {
		_ = p.cmd.Process.Kill()
		_ = p.wait()
	}
	r.processes = nil
}

// ask returns what the router says of itself.
func (r *router) ask(t testing.TB, question string) string {
	t.Helper()
	text, err := r.tryAsk(question)
	if err != nil {
		t.Logf("asking %s %q: %v: %s", r.name, question, err, text)
	}
	return text
}

func (r *router) tryAsk(question string) (string, error) {
	cmd := exec.Command(vtysh, "--vty_socket", r.directory, "-c", question)
	if r.bird {
		cmd = exec.Command(birdc, "-s", r.file("socket"), question)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := r.Run(cmd)
	return out.String(), err
}

// reload has the router read its configuration, as it is by now.
func (r *router) reload(t testing.TB) {
	t.Helper()
	r.write(t)
	if out := r.ask(t, "configure"); !strings.Contains(out, "Reconfigured") && !strings.Contains(out, "Reconfiguration in progress") {
		t.Fatalf("%s does not take its configuration: %s", r.name, out)
	}
}

func (r *router) write(t testing.TB) {
	t.Helper()
	must(t, os.MkdirAll(r.directory, 0o755))
	if !r.bird {
		// Its programs do not run as root.
		owner, err := user.Lookup("frr")
		must(t, err)
		uid, err := strconv.Atoi(owner.Uid)
		must(t, err)
		gid, err := strconv.Atoi(owner.Gid)
		must(t, err)
		must(t, os.Chown(r.directory, uid, gid))
	}
	text := r.frrConfig()
	if r.bird {
		text = r.birdConfig()
	}
	must(t, os.WriteFile(r.file("conf"), []byte(text), 0o644))
}

func (r *router) other() (asn, rack int) { return 64602 - r.rack, 1 - r.rack }

// birdConfig is that of docs/bgp.md, for both families.
func (r *router) birdConfig() string {
	filter := r.filter
	if filter == "" {
		filter = "export all;"
	}
	var b strings.Builder
	fmt.Fprintf(&b, `router id 172.31.0.%d;
protocol device { scan time 1; }
protocol direct { ipv4; ipv6; interface "eth*"; }
protocol kernel { merge paths on; ipv4 { export where source = RTS_BGP || source = RTS_STATIC; }; }
protocol kernel { merge paths on; ipv6 { export where source = RTS_BGP || source = RTS_STATIC; }; }
protocol bgp node4 {
	local 172.30.%[2]d.%[1]d as %[3]d;
	neighbor 172.30.%[2]d.%[4]d as 64512;
	hold time 9;
	connect retry time 1; connect delay time 1; error wait time 1, 2;
	ipv4 { import all; %[5]s };
	%[6]s
}
protocol bgp node6 {
	local fd00:30:%[2]d::%[1]d as %[3]d;
	neighbor fd00:30:%[2]d::%[4]d as 64512;
	hold time 9;
	connect retry time 1; connect delay time 1; error wait time 1, 2;
	ipv6 { import all; %[5]s };
	%[6]s
}
`, r.host, r.rack, r.asn, r.rack+1, filter, r.node)
	asn, rack := r.other()
	for i := range 2 {
		host := 1 + 2*rack + i
		fmt.Fprintf(&b, `protocol bgp spine4_%[1]d { local 172.31.0.%[2]d as %[3]d; neighbor 172.31.0.%[1]d as %[4]d; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv4 { import all; export all; }; }
protocol bgp spine6_%[1]d { local fd00:31::%[2]d as %[3]d; neighbor fd00:31::%[1]d as %[4]d; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv6 { import all; export all; }; }
`, host, r.host-250+2*r.rack, r.asn, asn)
	}
	return strings.ReplaceAll(b.String(), fmt.Sprintf("router id 172.31.0.%d;", r.host), fmt.Sprintf("router id 172.31.0.%d;", r.host-250+2*r.rack)) + r.extra
}

// frrConfig is that of docs/bgp.md, for both families.
func (r *router) frrConfig() string {
	var b strings.Builder
	own := r.host - 250 + 2*r.rack
	fmt.Fprintf(&b, `router bgp %d
 bgp router-id 172.31.0.%d
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 3 9
`, r.asn, own)
	var activate [2]strings.Builder
	neighbour := func(address string, asn int, more string) {
		family := 0
		if strings.Contains(address, ":") {
			family = 1
		}
		fmt.Fprintf(&b, " neighbor %[1]s remote-as %[2]d\n neighbor %[1]s timers connect 1\n", address, asn)
		if more != "" {
			fmt.Fprintf(&b, " neighbor %s %s\n", address, more)
		}
		fmt.Fprintf(&activate[family], "  neighbor %s activate\n", address)
	}
	neighbour(fmt.Sprintf("172.30.%d.%d", r.rack, r.rack+1), 64512, r.node)
	neighbour(fmt.Sprintf("fd00:30:%d::%d", r.rack, r.rack+1), 64512, r.node)
	asn, rack := r.other()
	for i := range 2 {
		neighbour(fmt.Sprintf("172.31.0.%d", 1+2*rack+i), asn, "")
		neighbour(fmt.Sprintf("fd00:31::%d", 1+2*rack+i), asn, "")
	}
	for i, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  redistribute connected\n  maximum-paths 4\n%s exit-address-family\n", family, activate[i].String())
	}
	return b.String() + r.extra
}
