package ports

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

func TestMain(m *testing.M) { netlab.Main(m) }

func at(text string) Mapping {
	m := Mapping{HostPort: 80, ContainerPort: 8080, Protocol: "tcp"}
	if text != "" {
		m.HostIP = netip.MustParseAddr(text)
	}
	return m
}

func TestOverlaps(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"", "", true}, {"", "0.0.0.0", true}, {"", "::", true}, {"", "10.0.0.1", true}, {"", "fd00::1", true},
		{"0.0.0.0", "::", false}, {"0.0.0.0", "10.0.0.1", true}, {"0.0.0.0", "fd00::1", false}, {"::", "fd00::1", true},
		{"10.0.0.1", "10.0.0.1", true}, {"10.0.0.1", "10.0.0.2", false}, {"10.0.0.1", "fd00::1", false},
	} {
		a, b := at(c.a), at(c.b)
		if a.Overlaps(b) != c.want || b.Overlaps(a) != c.want {
			t.Errorf("%s and %s: want %v", a, b, c.want)
		}
		if b.Protocol = "udp"; a.Overlaps(b) {
			t.Errorf("%s and %s overlap", a, b)
		}
	}
}

// The table that is made is the one that the package's comment shows, and nft can read
// what it lists of it.
func TestTable(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the program nft is missing (Debian package nftables)")
	}
	node := netlab.Start(t).Node("node")
	table := &Table{Lock: filepath.Join(t.TempDir(), "ports.lock"), Living: func(netip.Addr) (bool, error) { return true, nil }}
	pod := Pod{Name: "default/web", Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00::2")}, Wanted: Wanted{
		Mappings: []Mapping{at(""), {HostPort: 53, ContainerPort: 53, Protocol: "udp", HostIP: netip.MustParseAddr("192.0.2.1")}}, MasqueradeAll: true,
	}}
	do := func(f func() error) {
		t.Helper()
		if err := node.Do(f); err != nil {
			t.Fatal(err)
		}
	}
	do(func() error { return table.Add(context.Background(), pod) })
	text, err := node.Output("nft", "list", "table", "inet", "flatnet-ports")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"elements = { tcp . 80 comment \"default/web\" : 10.1.0.2 . 8080 }",
		"elements = { 192.0.2.1 . udp . 53 comment \"default/web\" : 10.1.0.2 . 53 }",
		"elements = { tcp . 80 comment \"default/web\" : fd00::2 . 8080 }",
		"fd00::2 . tcp . 8080",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	do(func() error {
		if _, err := table.RemoveAll(); err != nil {
			return err
		}
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return table.Check(pod)
	})
	// Who wants what is there is refused; to have it twice is none.
	do(func() error { return table.Add(context.Background(), pod) })
	other := Pod{Name: "default/db", Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.3")}, Wanted: Wanted{Mappings: []Mapping{at("192.0.2.7")}}}
	var conflict *Conflict
	do(func() error {
		if err := table.Add(context.Background(), other); !errors.As(err, &conflict) || conflict.Pod != "default/web" {
			return fmt.Errorf("a port that is taken: %w", err)
		}
		return nil
	})
	do(func() error {
		settle, err := table.Remove(context.Background(), other) // takes nothing that is not its own
		settle()
		if err != nil {
			return err
		}
		if err := table.Check(pod); err != nil {
			return err
		}
		settle, err = table.Remove(context.Background(), pod)
		settle()
		if err != nil {
			return err
		}
		if err := table.Clear(); err != nil {
			return err
		}
		c, err := nft.Open()
		if err != nil {
			return err
		}
		defer c.Close()
		left, err := c.Tables()
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("left: %v", left)
		}
		return err
	})
}
