package programs

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// needed are programs of the machine, the Debian package of each, and what for.
var needed = []struct{ program, pkg, purpose string }{
	{"containerd", "containerd", "the container runtime"},
	{"runc", "runc", "the container runtime"},
	{"etcd", "etcd-server", "the API server's database"},
	{"conntrack", "conntrack", "kube-proxy"},
	{"socat", "socat", "kubectl port-forward"},
	{"nsenter", "util-linux", "commands on nodes"},
	{"mount", "mount", "kubelet's volumes"},
	{"nft", "nftables", "flatnet's image"},
	{"iptables", "iptables", "flatnet's image, and kube-proxy"},
	{"ip", "iproute2", "the tests' image"},
	{"bash", "bash", "the tests' image"},
	{"busybox", "busybox-static", "the image busybox"},
	{"nc.openbsd", "netcat-openbsd", "the tests' image"},
	{"dig", "bind9-dnsutils", "the tests' image"},
	{"curl", "curl", "the tests' image"},
	{"wget", "wget", "flatnet's image, and the tests' one"},
	{"ps", "procps", "the tests' image"},
}

// Install looks for the programs of the machine that a cluster needs; as root
// on Debian or its descendants it installs what is missing, elsewhere the error
// names it.
func Install(ctx context.Context, out io.Writer) error {
	// Debian's package starts etcd where there is something that starts services,
	// so only the programs of the machine are looked for, not services.
	var packages []string
	var text strings.Builder
	for _, n := range needed {
		if Find(n.program) == "" {
			packages = append(packages, n.pkg)
			fmt.Fprintf(&text, "\n  %s: %s", n.pkg, n.purpose)
		}
	}
	if len(packages) == 0 {
		return nil
	}
	if _, err := exec.LookPath("apt-get"); err != nil || os.Getuid() != 0 {
		return fmt.Errorf("missing packages, and what each is for:%s\nas root on Debian: apt-get install %s", text.String(), strings.Join(packages, " "))
	}
	fmt.Fprintf(out, "installing Debian packages: %s\n", strings.Join(packages, " "))
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, packages...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if output, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("installing %s: %w\n%s", strings.Join(packages, " "), err, output)
		}
	}
	return nil
}

// Find returns the path of a program of the machine, or nothing.
func Find(program string) string {
	for _, directory := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		path := directory + "/" + program
		if info, err := os.Stat(path); err == nil && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}
