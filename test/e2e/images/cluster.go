package images

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/flatnet-cni/flatnet/test/e2e/certificates"
	"github.com/flatnet-cni/flatnet/test/e2e/programs"
)

// Sources are the directories that images' programs come from; others come
// from the machine.
type Sources struct {
	Flatnet    string // flatnet, flatnet-ipam and flatnetd
	Kubernetes string // what package programs built
	// Names are the images that Kubernetes' own tests start: references, by
	// upstream's names for them, which differ between its versions.
	Names map[string]string
}

// tags are own and the references that tests have for the image.
func (s Sources) tags(own []string, names ...string) []string {
	for _, name := range names {
		if reference, is := s.Names[name]; is && !slices.Contains(own, reference) {
			own = append(own, reference)
		}
	}
	return own
}

// Names of images.
const (
	Flatnet = "ghcr.io/flatnet-cni/flatnet:latest"
	Pause   = "registry.k8s.io/pause:3.10.1"
	CoreDNS = "registry.k8s.io/coredns/coredns:v1.14.7"
	Agnhost = "registry.k8s.io/e2e-test-images/agnhost:2.59"
	// Nginx is what `kubectl run --image=nginx` asks for. It is agnhost's web server.
	Nginx   = "docker.io/library/nginx:latest"
	Busybox = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
)

// Network are the images without which no node becomes ready.
func Network(s Sources) []Image {
	return []Image{
		{
			Tags:       s.tags([]string{Pause}, "Pause"),
			Layers:     []*Layer{NewLayer().File("/pause", filepath.Join(s.Kubernetes, "pause"))},
			Entrypoint: []string{"/pause"},
		},
		flatnet(s),
	}
}

// flatnet is the image of deploy/image/Dockerfile, on Debian instead of Alpine.
func flatnet(s Sources) Image {
	l := base()
	for _, name := range []string{"flatnetd", "flatnet", "flatnet-ipam", "flatnet-bgp"} {
		l.File("/usr/local/bin/"+name, filepath.Join(s.Flatnet, name))
	}
	l.Program("/usr/sbin/nft", programs.Find("nft"))
	// Of Alpine's busybox, what `kubectl flatnet` executes. The wget of Debian's static one
	// ends with a signal where libraries are beside it that it was not built with.
	l.Program("/bin/busybox", programs.Find("busybox")).Link("/bin/ip", "busybox").Program("/bin/wget", programs.Find("wget"))
	iptables(l)
	return Image{Tags: []string{Flatnet}, Layers: []*Layer{l}, Entrypoint: []string{"/usr/local/bin/flatnetd"}}
}

// iptables adds both variants.
func iptables(l *Layer) *Layer {
	for _, variant := range []string{"nft", "legacy"} {
		multi := "xtables-" + variant + "-multi"
		l.Program("/usr/sbin/"+multi, programs.Find(multi))
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, verb := range []string{"", "-save", "-restore"} {
				l.Link("/usr/sbin/"+family+"-"+variant+verb, multi)
				if variant == "nft" {
					l.Link("/usr/sbin/"+family+verb, multi)
				}
			}
		}
	}
	return l.Libraries("/usr/lib/*-linux-gnu/xtables/*.so")
}

// base is a layer with what each image of more than one file has.
func base() *Layer {
	return NewLayer().
		Directory("/tmp", 0o1777).Directory("/run", 0o755).Directory("/var/tmp", 0o1777).
		Text("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", 0o644).
		Text("/etc/group", "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n", 0o644).
		Text("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644)
}

// Applications are all other images: the cluster's DNS server, and those that
// tests use under upstream's names.
func Applications(s Sources) ([]Image, error) {
	// What agnhost serves HTTPS with.
	authority, err := certificates.NewAuthority("agnhost")
	if err != nil {
		return nil, err
	}
	pair, err := authority.Server("localhost", []string{"localhost"}, nil)
	if err != nil {
		return nil, err
	}
	dns := NewLayer().File("/coredns", filepath.Join(s.Kubernetes, "coredns"))
	tools := toolbox(s).Text("/localhost.crt", string(pair.Certificate), 0o644).Text("/localhost.key", string(pair.Key), 0o644)
	tables := iptables(shell(base()))
	return []Image{
		{Tags: []string{CoreDNS}, Layers: []*Layer{dns}, Entrypoint: []string{"/coredns"}},
		{
			// Upstream's tests run nothing of the images but a shell, a DNS client and a web server.
			Tags: s.tags([]string{Agnhost, "docker.io/library/agnhost:latest"},
				"Agnhost", "AgnhostPrev", "JessieDnsutils", "GlibcDnsTesting", "Nginx", "NginxNew"),
			Layers: []*Layer{dns, tools}, Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"},
		},
		{
			Tags:   []string{Nginx},
			Layers: []*Layer{dns, tools}, Entrypoint: []string{"/agnhost", "netexec"}, Cmd: []string{"--http-port=80", "--udp-port=-1"},
		},
		{Tags: s.tags([]string{Busybox, "docker.io/library/busybox:latest"}, "BusyBox"), Layers: []*Layer{busybox()}, Cmd: []string{"sh"}},
		{
			Tags:       s.tags([]string{"docker.io/library/regression-issue-74839:latest"}, "RegressionIssue74839"),
			Layers:     []*Layer{NewLayer().File("/regression-issue-74839", filepath.Join(s.Kubernetes, "regression-issue-74839"))},
			Entrypoint: []string{"/regression-issue-74839"},
		},
		{
			Tags:   s.tags([]string{"docker.io/library/distroless-iptables:latest"}, "DistrolessIptables"),
			Layers: []*Layer{tables.Program("/usr/sbin/conntrack", programs.Find("conntrack"))},
		},
	}, nil
}

// shell adds bash as sh, and the programs that scripts need.
func shell(l *Layer) *Layer {
	for _, name := range []string{
		"bash", "basename", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "dirname", "echo", "env", "expr", "false", "grep", "sed",
		"head", "hostname", "id", "ln", "ls", "mkdir", "mknod", "mktemp", "mv", "od", "ps", "pwd", "readlink", "rm", "rmdir", "seq", "sleep",
		"sort", "stat", "stty", "tail", "tee", "test", "timeout", "touch", "tr", "true", "uname", "uniq", "wc", "which", "xargs", "yes",
		"find", "kill", "mount", "md5sum", "sha256sum", "getent", "awk", "ping",
	} {
		if source := programs.Find(name); source != "" {
			l.Program("/usr/bin/"+name, source)
		}
	}
	l.Link("/usr/bin/sh", "bash")
	l.Link("/bin", "usr/bin").Link("/sbin", "usr/sbin")
	return l
}

// toolbox is the layer of agnhost. bash is its shell, because busybox prefers
// an applet to the program of that name, and tests want the real nc.
func toolbox(s Sources) *Layer {
	l := shell(base())
	for name, program := range map[string]string{
		"nc": "nc.openbsd", "dig": "dig", "curl": "curl", "wget": "wget", "ss": "ss", "ip": "ip", "nslookup": "nslookup", "host": "host",
		"getent": "getent",
	} {
		if source := programs.Find(program); source != "" {
			l.Program("/usr/bin/"+name, source)
		}
	}
	// What the C library loads to resolve names, where it is not part of it.
	if library("libnss_dns.so.2", "/lib") != "" {
		l.Libraries("/lib/*-linux-gnu/libnss_*.so.2")
	}
	return l.File("/agnhost", filepath.Join(s.Kubernetes, "agnhost")).Link("/agnhost-2", "agnhost").Directory("/uploads", 0o777)
}

// busybox is one program under the names of what it can do.
func busybox() *Layer {
	l := base().Program("/bin/busybox", programs.Find("busybox"))
	for _, applet := range strings.Fields(`[ ash awk basename cat chgrp chmod chown cp cut date dd df dirname du echo env expr false find free
		grep head hostname id ifconfig ip kill ln ls md5sum mkdir mknod mktemp mount mv nc netstat nslookup od ping ping6 printf ps pwd readlink
		rm rmdir route sed seq sh sha256sum sleep sort stat stty sync tail tar tee telnet test timeout top touch tr traceroute true umount uname
		uniq uptime usleep vi wc wget which whoami xargs yes`) {
		l.Link("/bin/"+applet, "busybox")
	}
	return l
}
