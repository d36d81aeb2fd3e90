package racks

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/flatnet-cni/flatnet/test/netlab"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// Where Debian has the routers' programs.
const (
	BIRD  = "/usr/sbin/bird"
	birdc = "/usr/sbin/birdc"
	vtysh = "/usr/bin/vtysh"
	frr   = "/usr/lib/frr/"
	BGPD  = frr + "bgpd" // FRR's
)

// Router is a machine with BIRD or FRR.
type Router struct {
	*netlab.Node
	Name, Directory string
	IsBIRD          bool
	ASN             int
	Rack            int    // 0 or 1
	Host            int    // last number of its addresses
	Extra           string // configuration that is added, and is in place of nothing else
	Session         string // what is said besides of the session with the rack's node
	Filter          string // BIRD: the export filter towards the node, per family

	processes []process
}

type process struct {
	cmd  *exec.Cmd
	wait func() error
}

// File is one of the router's own.
func (r *Router) File(name string) string { return filepath.Join(r.Directory, name) }

// RunProgram starts one that writes to the router's log.
func (r *Router) RunProgram(program string, arguments ...string) error {
	log, err := os.OpenFile(r.File("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, arguments...)
	cmd.Stdout, cmd.Stderr = log, log
	wait, err := r.Node.Start(cmd)
	if err != nil {
		return fmt.Errorf("starting %s on %s: %w", program, r.Name, err)
	}
	r.processes = append(r.processes, process{cmd, wait})
	return nil
}

// Start starts the router's programs.
func (r *Router) Start() error {
	if err := r.Write(); err != nil {
		return err
	}
	if r.IsBIRD {
		return r.RunProgram(BIRD, "-f", "-c", r.File("conf"), "-s", r.File("socket"))
	}
	// Without zebra, bgpd knows of no next hop.
	if err := r.startDaemon("zebra"); err != nil {
		return err
	}
	_, err := pace.Await(pace.Far(), func() error {
		_, err := os.Stat(r.File("zserv"))
		return err
	})
	if err != nil {
		return fmt.Errorf("waiting for zebra on %s: %w", r.Name, err)
	}
	return r.startDaemon("bgpd")
}

func (r *Router) startDaemon(daemon string) error {
	return r.RunProgram(frr+daemon, "-f", r.File("conf"), "-i", r.File(daemon+".pid"), "-z", r.File("zserv"),
		"--vty_socket", r.Directory, "-u", "frr", "-g", "frr", "--log", "file:"+r.File("log"))
}

// Kill ends the router's programs without a word.
func (r *Router) Kill() {
	for _, p := range r.processes {
		_ = p.cmd.Process.Kill()
		_ = p.wait()
	}
	r.processes = nil
}

// Freeze stops the router's programs, or lets them go on: one that is to be dead cannot say
// goodbye while its links go down one after the other.
func (r *Router) Freeze(frozen bool) error {
	signal := syscall.SIGCONT
	if frozen {
		signal = syscall.SIGSTOP
	}
	var all error
	for _, p := range r.processes {
		all = errors.Join(all, p.cmd.Process.Signal(signal))
	}
	return all
}

// Ask returns what the router says to birdc, or to vtysh.
func (r *Router) Ask(questions ...string) (string, error) {
	cmd := exec.Command(birdc, "-s", r.File("socket"), strings.Join(questions, " "))
	if !r.IsBIRD {
		cmd = exec.Command(vtysh, "--vty_socket", r.Directory)
		for _, q := range questions {
			cmd.Args = append(cmd.Args, "-c", q)
		}
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	err := r.Run(cmd)
	return out.String(), err
}

// Configuration is what the router reads.
func (r *Router) Configuration() string {
	if r.IsBIRD {
		return r.birdConfig()
	}
	return r.frrConfig()
}

// Write writes the router's configuration.
func (r *Router) Write() error {
	if err := os.MkdirAll(r.Directory, 0o755); err != nil {
		return err
	}
	if !r.IsBIRD {
		// Its programs do not run as root.
		owner, err := user.Lookup("frr")
		if err != nil {
			return err
		}
		uid, err := strconv.Atoi(owner.Uid)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(owner.Gid)
		if err != nil {
			return err
		}
		if err := os.Chown(r.Directory, uid, gid); err != nil {
			return err
		}
	}
	return os.WriteFile(r.File("conf"), []byte(r.Configuration()), 0o644)
}

func (r *Router) other() (asn, rack int) { return 64602 - r.Rack, 1 - r.Rack }

// birdConfig is that of docs/bgp.md, for both families.
func (r *Router) birdConfig() string {
	filter := r.Filter
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
`, r.Host, r.Rack, r.ASN, r.Rack+1, filter, r.Session)
	asn, rack := r.other()
	for i := range 2 {
		host := 1 + 2*rack + i
		fmt.Fprintf(&b, `protocol bgp spine4_%[1]d { local 172.31.0.%[2]d as %[3]d; neighbor 172.31.0.%[1]d as %[4]d; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv4 { import all; export all; }; }
protocol bgp spine6_%[1]d { local fd00:31::%[2]d as %[3]d; neighbor fd00:31::%[1]d as %[4]d; hold time 9; connect retry time 1; connect delay time 1; error wait time 1, 2; ipv6 { import all; export all; }; }
`, host, r.Host-250+2*r.Rack, r.ASN, asn)
	}
	return strings.ReplaceAll(b.String(), fmt.Sprintf("router id 172.31.0.%d;", r.Host), fmt.Sprintf("router id 172.31.0.%d;", r.Host-250+2*r.Rack)) + r.Extra
}

// frrConfig is that of docs/bgp.md, for both families.
func (r *Router) frrConfig() string {
	var b strings.Builder
	own := r.Host - 250 + 2*r.Rack
	fmt.Fprintf(&b, `router bgp %d
 bgp router-id 172.31.0.%d
 no bgp ebgp-requires-policy
 no bgp default ipv4-unicast
 bgp bestpath as-path multipath-relax
 timers bgp 3 9
`, r.ASN, own)
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
	neighbour(fmt.Sprintf("172.30.%d.%d", r.Rack, r.Rack+1), 64512, r.Session)
	neighbour(fmt.Sprintf("fd00:30:%d::%d", r.Rack, r.Rack+1), 64512, r.Session)
	asn, rack := r.other()
	for i := range 2 {
		neighbour(fmt.Sprintf("172.31.0.%d", 1+2*rack+i), asn, "")
		neighbour(fmt.Sprintf("fd00:31::%d", 1+2*rack+i), asn, "")
	}
	for i, family := range []string{"ipv4", "ipv6"} {
		fmt.Fprintf(&b, " address-family %s unicast\n  redistribute connected\n  maximum-paths 4\n%s exit-address-family\n", family, activate[i].String())
	}
	return b.String() + r.Extra
}
