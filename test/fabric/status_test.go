package fabric_test

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// TestStatus: people and machines are told how each peer is reached.
func TestStatus(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[2], cluster.Dual)
	s.Start()
	n := s.Node("n1")
	s.Lab.Pod("nothing")
	placePod(t, n, "pod")
	text := get(n.Flatnetd("status"))(t)
	for _, line := range []string{
		`node n1: ready`,
		`fabric +auto, overlay on flatnet\.vx`,
		`addresses +172\.30\.0\.1 fd00:30::1`,
		`podCIDRs +10\.244\.1\.0/24 fd00:244:1::/64`,
		`pod MTU +1450`,
		`IPv4 addresses +1 of \d+ used`,
		`n2 +10\.244\.2\.0/24 +direct +172\.30\.0\.2 +eth0 +present`,
		`n2 +fd00:244:2::/64 +direct +fd00:30::2 +eth0 +present`,
		`n3 +10\.244\.3\.0/24 +vxlan +172\.30\.1\.3 +flatnet\.vx +present`,
		`n3 +fd00:244:3::/64 +vxlan +172\.30\.1\.3 +flatnet\.vx +present`,
		`no problems`,
	} {
		if !regexp.MustCompile(`(?m)^ *` + line).MatchString(text) {
			t.Errorf("no line of the status is like %q:\n%s", line, text)
		}
	}
	var status agent.Status
	must(t, json.Unmarshal([]byte(get(n.Flatnetd("status", "-o", "json"))(t)), &status))
	if !status.Ready || len(status.Peers) != 2 || status.Peers[0].Mode != "direct" || status.Peers[1].Mode != "vxlan" {
		t.Errorf("the status for machines is %+v", status)
	}
	for path, want := range map[string]string{
		"/healthz": "200 ok", "/readyz": "200 ready", "/status": "404", "/metrics": "200",
	} {
		if got := overTCP(t, n, path); !strings.HasPrefix(got, want) {
			t.Errorf("%s says %.200q, want %s", path, got, want)
		}
	}
	for _, series := range []string{
		`flatnet_peers{mode="direct"} 1`, `flatnet_peers{mode="vxlan"} 1`, `flatnet_routes{state="desired"} 4`, `flatnet_routes{state="present"} 4`,
		`flatnet_addresses{family="IPv4",state="used"} 1`, `flatnet_ready 1`, `flatnet_source_healthy 1`, `flatnet_problems 0`,
		`flatnet_repairs_total{object="route"} 0`, `flatnet_masquerade_set_elements{set="pods4"} 3`, "flatnet_build_info{",
	} {
		if text := overTCP(t, n, "/metrics"); !strings.Contains(text, series) {
			t.Errorf("metrics lack %s:\n%s", series, text)
		}
	}
}

// overTCP asks flatnetd at its default address, in its node's namespace.
func overTCP(t *testing.T, n *cluster.Node, path string) string {
	t.Helper()
	client := http.Client{Timeout: timeout, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (connection net.Conn, err error) {
			err = n.Do(func() error {
				connection, err = (&net.Dialer{}).DialContext(ctx, network, address)
				return err
			})
			return connection, err
		},
	}}
	answer := get(client.Get("http://" + agent.DefaultListen + path))(t)
	defer answer.Body.Close()
	body := get(io.ReadAll(answer.Body))(t)
	return answer.Status[:4] + string(body)
}
