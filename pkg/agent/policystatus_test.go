package agent

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/policy"
)

func TestParsePort(t *testing.T) {
	for text, want := range map[string]policy.Port{
		"80":        {Protocol: policy.TCP, First: 80, Last: 80},
		"53/UDP":    {Protocol: policy.UDP, First: 53, Last: 53},
		"132/sctp":  {Protocol: policy.SCTP, First: 132, Last: 132},
		"icmp":      {Protocol: 1},
		"icmpv6":    {Protocol: 58},
		"http":      {Protocol: policy.TCP, Name: "http"},
		"http/udp":  {Protocol: policy.UDP, Name: "http"},
		"icmp/tcp":  {Protocol: policy.TCP, Name: "icmp"},
		"80x/sctp":  {Protocol: policy.SCTP, Name: "80x"},
		"web-1/tcp": {Protocol: policy.TCP, Name: "web-1"},
	} {
		if got, err := parsePort(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/", "/tcp", "70000", "-1", "80/quic", "http/", "http/icmp", "HTTP", "-http", "a/b/c", "longer-than-15-letters"} {
		if got, err := parsePort(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

func TestExplanationForPeople(t *testing.T) {
	web := netip.MustParseAddr("10.244.1.2")
	e := policy.Explanation{
		From: "shop/client", To: "shop/web", Port: 8080, PortName: "http", Protocol: "tcp",
		Decisions: []policy.Decision{{Pod: "shop/web", Address: web, Direction: "ingress", Allowed: true, Because: "NetworkPolicy shop/some, ingress rule 1"}},
		Elsewhere: true, Notes: []string{"10.244.2.2 is pod shop/client on node n2: ask there what its policies say"},
	}
	const head = "shop/client to shop/web, port 8080/tcp, which is http: allowed by this node's end"
	const rest = `
  ingress of shop/web 10.244.1.2  allows  NetworkPolicy shop/some, ingress rule 1
  10.244.2.2 is pod shop/client on node n2: ask there what its policies say
`
	for _, c := range []struct {
		kernel *policy.InKernel
		want   string
	}{
		{nil, head + rest},
		{&policy.InKernel{}, head + rest + "  the kernel's rules were compared with this: they are the same\n"},
		{
			&policy.InKernel{Differs: []string{"chain new has other rules", "set self4 is missing"}},
			head + " by the policies, BUT THE KERNEL HAS OTHER RULES" + rest +
				"  the kernel's rules differ from this: chain new has other rules; set self4 is missing; they are written again within a second, see `flatnetd status` where they are not\n",
		},
		{
			&policy.InKernel{Closed: []netip.Addr{web}},
			head + " by the policies, BUT A POD IS STILL CLOSED" + rest +
				"  10.244.1.2 is closed by nftables table inet flatnet-closed, in one direction or both, until the rules of its pod are in place\n" +
				"  the kernel's rules were compared with this: they are the same\n",
		},
		{
			&policy.InKernel{Evicted: []netip.Addr{web}},
			head + " by the policies, BUT AN ADDRESS IS SOMEBODY ELSE'S NOW" + rest +
				"  10.244.1.2 was given to somebody new, of whom the rules do not know yet: no policy's selector takes it\n" +
				"  the kernel's rules were compared with this: they are the same\n",
		},
		{&policy.InKernel{Failure: "no answer"}, head + rest + "  whether the kernel has these rules is not known: no answer\n"},
	} {
		e.Kernel = c.kernel
		var b bytes.Buffer
		printExplanation(&b, e)
		if got := b.String(); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
}
