package netconf

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/wire"
)

func TestBandwidth(t *testing.T) {
	for text, want := range map[string]string{
		``:                                     "none",
		`"runtimeConfig": {"bandwidth": null}`: "none",
		`"runtimeConfig": {"bandwidth": {}}`:   "none",
		`"ingressRate": 0, "ingressBurst": 0`:  "none",
		`"runtimeConfig": {"bandwidth": {"ingressRate": 0, "ingressBurst": 18446744073709551615, "egressBurst": 4294967295}}`: "none",
		`"unshapedSubnets": ["10.0.0.0/8"]`:                                          "none", // nothing to be exempt from
		`"ingressRate": 123, "ingressBurst": 456, "egressRate": 8, "egressBurst": 9`: "in 123/456 out 8/9 [] []",
		`"ingressRate": 123, "ingressBurst": 456`:                                    "in 123/456 out - [] []",
		`"egressRate": 18446744073709551615, "egressBurst": 34359738359`:             "in - out 18446744073709551615/34359738359 [] []",
		`"runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8, "egressRate": 16, "egressBurst": 9, "unshapedSubnets": ["10.1.2.3/8", "fd00::/64"]}}`: "in 8/8 out 16/9 [] [10.0.0.0/8 fd00::/64]",
		// What runtimes send for annotations: containerd, dockershim, CRI-O, CRI-O before 1.23.
		`"runtimeConfig": {"bandwidth": {"ingressRate": 1000000, "ingressBurst": 4294967295, "egressRate": 1000000, "egressBurst": 2147483647}}`:   "in 1000000/0 out 1000000/0 [] []",
		`"runtimeConfig": {"bandwidth": {"ingressRate": 1000000, "ingressBurst": 34359738359, "egressRate": 1000000, "egressBurst": 34359738360}}`: "in 1000000/0 out 1000000/0 [] []",
		// The configuration's word holds, in each direction, and so does its silence.
		`"ingressRate": 0, "egressRate": 123, "egressBurst": 123, "unshapedSubnets": ["192.168.0.0/24"],
		 "runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8, "egressRate": 16, "egressBurst": 9, "unshapedSubnets": ["10.0.0.0/8"]}}`: "in - out 123/123 [] [192.168.0.0/24]",
		`"egressRate": 123, "egressBurst": 123, "runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8, "egressRate": 16, "egressBurst": 9}}`: "in 8/8 out 123/123 [] []",
		`"shapedSubnets": ["10.0.0.0/8"], "runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8}}`:                                           "in 8/8 out - [10.0.0.0/8] []",
	} {
		c, _, err := parseText(`{`+text+strings.Repeat(", ", min(1, len(text)))+ranges+`}`, "")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := showBandwidth(c.Bandwidth); got != want {
			t.Errorf("%s:\ngot  %s\nwant %s", text, got, want)
		}
	}
}

func showBandwidth(b *wire.Bandwidth) string {
	if b == nil {
		return "none"
	}
	rate := func(r *wire.Rate) string {
		if r == nil {
			return "-"
		}
		return fmt.Sprintf("%d/%d", r.BitsPerSecond, r.BurstBits)
	}
	return fmt.Sprintf("in %s out %s %v %v", rate(b.Ingress), rate(b.Egress), b.Shaped, b.Unshaped)
}

func TestBadBandwidth(t *testing.T) {
	for text, wants := range map[string][]string{
		`"ingressRate": 0, "ingressBurst": 123`:                     {"ingressRate 0", "ingressBurst"},
		`"egressBurst": 123`:                                        {"egressRate 0", "egressBurst"},
		`"ingressRate": 123`:                                        {"ingressBurst 0", "ingressRate"},
		`"egressRate": 123, "egressBurst": 0`:                       {"egressBurst 0"},
		`"ingressRate": -1, "ingressBurst": 123`:                    {"ingressRate -1", "bits per second"},
		`"ingressRate": 123, "ingressBurst": -123`:                  {"ingressBurst -123", "bits"},
		`"ingressRate": 1.5, "ingressBurst": 123`:                   {"ingressRate 1.5"},
		`"ingressRate": "1M", "ingressBurst": 123`:                  {`ingressRate "1M"`},
		`"ingressRate": 7, "ingressBurst": 123`:                     {"ingressRate 7", "at least 8"},
		`"ingressRate": 18446744073709551616, "ingressBurst": 8`:    {"ingressRate 18446744073709551616"},
		`"ingressRate": 123, "ingressBurst": 34359738360`:           {"ingressBurst 34359738360", "4 GB"},
		`"runtimeConfig": {"bandwidth": {"egressBurst": 8}}`:        {"runtimeConfig.bandwidth.egressRate 0"},
		`"runtimeConfig": {"bandwidth": {"egressRate": -8}}`:        {"runtimeConfig.bandwidth.egressRate -8"},
		`"runtimeConfig": {"bandwidth": {"ingressRate": 8}}`:        {"runtimeConfig.bandwidth.ingressBurst 0"},
		`"shapedSubnets": ["10.0.0.0/8", "hello"]`:                  {"shapedSubnets[1]", `"hello"`, "CIDR"},
		`"unshapedSubnets": ["10.0.0.0"]`:                           {"unshapedSubnets[0]", `"10.0.0.0"`},
		`"shapedSubnets": ["::/0"], "unshapedSubnets": ["::/0"]`:    {"unshapedSubnets", "together with shapedSubnets"},
		`"runtimeConfig": {"bandwidth": {"unshapedSubnets": [""]}}`: {"runtimeConfig.bandwidth.unshapedSubnets[0]"},
		// The static part is wrong, whatever the pod asks for.
		`"ingressRate": 0, "ingressBurst": 123, "runtimeConfig": {"bandwidth": {"ingressRate": 8, "ingressBurst": 8}}`: {"ingressRate 0"},
	} {
		config := `{` + text + `, ` + ranges + `}`
		_, _, err := parseText(config, "")
		var e *types.Error
		if !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig {
			t.Errorf("%s: error %v is not of code %d", text, err, types.ErrInvalidNetworkConfig)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %q lacks %q", text, err, want)
			}
		}
		// It keeps no pod from being deleted.
		if _, _, err := Parse(&cni.Request{Command: "DEL", Version: "1.0.0", Network: "net", Config: []byte(config)}); err != nil {
			t.Errorf("%s: DEL: %v", text, err)
		}
	}
}
