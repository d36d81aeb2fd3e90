package masquerade

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/flatnet-cni/flatnet/pkg/nft"
	"github.com/flatnet-cni/flatnet/test/netlab"
)

// childVariable makes the test program somebody else who changes the table.
const childVariable = "FLATNET_MASQUERADE_CHILD"

func mainOrChild(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		child(os.Getenv(childVariable))
	}
	netlab.Main(m)
}

// inNode calls f on a thread in a fresh namespace.
func inNode(t testing.TB, f func(node *netlab.Node)) {
	t.Helper()
	node := netlab.Start(t).Node("node")
	node.Test(t, func() { f(node) })
}

// needNFT skips where the program nft, which only tests use, is missing.
func needNFT(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("the program nft is missing (Debian package nftables)")
	}
}

// nft runs a script in the namespace.
func runNFT(t testing.TB, node *netlab.Node, script string) {
	t.Helper()
	cmd := exec.Command("nft", "-f", "-")
	var errOut strings.Builder
	cmd.Stdin, cmd.Stderr = strings.NewReader(script), &errOut
	if err := node.Run(cmd); err != nil {
		t.Fatalf("nft: %v: %s\n%s", err, errOut.String(), script)
	}
}

// differences returns what of the kernel's table is not as wanted. It is mended.
func differences(t testing.TB, want Ruleset) []string {
	t.Helper()
	k := &nft.Keeper{Keeps: []nft.ID{tableID}}
	defer k.Close()
	r, err := k.Verify(t.Context(), want.wanted())
	if err != nil {
		t.Fatal(err)
	}
	return r.Found
}

// expect fails where the kernel has anything but what is wanted.
func expect(t testing.TB, want Ruleset) {
	t.Helper()
	if found := differences(t, want); len(found) > 0 {
		t.Fatalf("the table is not as wanted: %s", strings.Join(found, "; "))
	}
}

// table is the agent's, for transactions of somebody else.
func table() *nftables.Table {
	return &nftables.Table{Family: nftables.TableFamilyINet, Name: tableID.Name}
}

// apply calls Sync, and compares the number of changes where it is not negative.
func apply(t testing.TB, k *Keeper, want Ruleset, changes int) {
	t.Helper()
	n, err := k.Sync(want)
	if err != nil {
		t.Fatal(err)
	}
	if changes >= 0 && n != changes {
		t.Errorf("%d changes, want %d", n, changes)
	}
}

// write makes a transaction of somebody else.
func write(t testing.TB, f func(c *nftables.Conn)) {
	t.Helper()
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		t.Fatal(err)
	}
	defer c.CloseLasting()
	f(c)
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
}

// own makes the table one that the kernel lets nobody else change as long as
// the socket lives.
// Equivalent to: `nft -i` with "add table inet flatnet { flags owner; }".
func own(t testing.TB, c *nft.Conn) {
	t.Helper()
	owned := &nft.Transaction{}
	owned.AddOwnedTable(tableID)
	switch err := c.Run(owned); {
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EOPNOTSUPP):
		t.Skip("this kernel has no nftables tables with an owner: they are there from Linux 5.12 on")
	case err != nil:
		t.Fatal(err)
	}
}

// failing is a log that must hold no warning.
func failing(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(failingWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

type failingWriter struct{ t testing.TB }

func (w failingWriter) Write(line []byte) (int, error) {
	w.t.Errorf("logged: %s", line)
	return len(line), nil
}

func tableNames(t testing.TB) []string {
	t.Helper()
	c, err := nftables.New()
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	slices.Sort(names)
	return names
}

// child is what the test program does in the place of another process.
func child(what string) {
	c, err := nftables.New()
	if err != nil {
		os.Exit(2)
	}
	plugins := &nftables.Table{Family: nftables.TableFamilyIPv6, Name: tableID.Name}
	switch what {
	case "flush ruleset":
		c.FlushRuleset()
	case "delete table":
		c.DelTable(table())
	case "add plugin's table":
		c.AddTable(plugins)
	case "unrelated":
		other := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "other"})
		for i := range 200 {
			c.AddChain(&nftables.Chain{Table: other, Name: fmt.Sprint("chain", i)})
		}
	}
	if err := c.Flush(); err != nil {
		os.Exit(3)
	}
	os.Exit(0)
}

// other has another process of the given name do something in the namespace.
func other(t testing.TB, node *netlab.Node, name, what string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	// A program with the race detector otherwise takes a second to end.
	cmd.Env = append(os.Environ(), childVariable+"="+what, "GORACE=atexit_sleep_ms=0")
	if err := node.Run(cmd); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}
