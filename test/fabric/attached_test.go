package fabric_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/flatnet-cni/flatnet/pkg/agent"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/test/cluster"
)

// held is the node's configuration with rates in it, as a file.
func held(t *testing.T, n *cluster.Node) string {
	t.Helper()
	plain := get(os.ReadFile(n.Conflist()))(t)
	rates := bytes.Replace(plain, []byte(`"type": "flatnet",`), []byte(`"type": "flatnet", "ingressRate": 10000000, "ingressBurst": 1000000, "egressRate": 1500000, "egressBurst": 1000000,`), 1)
	if bytes.Equal(plain, rates) {
		t.Fatalf("no place for rates in %s", plain)
	}
	path := filepath.Join(n.Directory, "held.conflist")
	must(t, os.WriteFile(path, rates, 0o644))
	return path
}

// rewrite changes what is recorded of a pod.
func rewrite(t *testing.T, p *cluster.Pod, change func(*attachment.Record)) {
	t.Helper()
	directory := attachment.OpenDirectory(p.Node.StateDir)
	for _, r := range get(directory.List(""))(t) {
		if r.Wire.Host.Name == p.HostInterface {
			change(&r)
			must(t, directory.Put(r))
			return
		}
	}
	t.Fatalf("nothing is recorded of pod %s", p.Name)
}

// TestStatusPods: who is attached, and what is wrong with whom, while flatnetd is down
// and nothing is repaired.
func TestStatusPods(t *testing.T) {
	t.Parallel()
	s := newSite(t, topologies[0], cluster.Dual)
	s.Start()
	n := s.Node("n1")
	ask := func() string { return get(n.Flatnetd("status", "pods"))(t) }
	if got := ask(); got != "no pod is attached, by the records below "+n.StateDir+"\n" {
		t.Errorf("without pods: %s", got)
	}
	web, db := n.PodWith("web", held(t, n)), n.Pod("db")
	row := func(p *cluster.Pod, rest string) string {
		return fmt.Sprintf(`(?m)^test/%s +%s %s +%s +%s$`, p.Name, p.Addresses[0], p.Addresses[1], p.HostInterface, rest)
	}
	has := func(what, text string, rows ...string) {
		t.Helper()
		for _, r := range rows {
			if !regexp.MustCompile(r).MatchString(text) {
				t.Errorf("%s: nothing is like %q in\n%s", what, r, text)
			}
		}
	}
	text := ask()
	has("flatnetd runs", text, `^POD +ADDRESSES +INTERFACE +PORTS +RATES +SINCE +WRONG\n`, row(db, `- +- +\S+ +-`), row(web, `- +10M/1500k +\S+ +-`))
	if strings.Index(text, "test/db") > strings.Index(text, "test/web") {
		t.Errorf("not sorted by pod:\n%s", text)
	}
	n.Stop()
	has("flatnetd is down", ask(), row(db, `- +- +\S+ +-`), row(web, `- +10M/1500k +\S+ +-`))

	// What lacks something and is young may be in the making. However long the test
	// takes: its minute does not end.
	rewrite(t, db, func(r *attachment.Record) { r.Since = time.Now().Add(time.Hour) })
	get(n.Output("ip", "link", "set", db.HostInterface, "down"))(t)
	has("a young pod", ask(), row(db, `- +- +\S+ +being made`))
	get(n.Output("ip", "link", "set", db.HostInterface, "up"))(t)
	for _, p := range []*cluster.Pod{web, db} {
		rewrite(t, p, func(r *attachment.Record) { r.Since = time.Now().Add(-50 * time.Hour) })
	}

	host := get(n.Netlink().LinkByName(web.HostInterface))(t)
	for _, damage := range []struct {
		what, word, reason string
		do                 func() error
	}{
		{"no qdisc", "rate missing", `no qdisc instead of the tbf that holds it to a rate \(expected: tc qdisc`, func() error {
			list, err := n.Netlink().QdiscList(host)
			if err != nil || len(list) == 0 {
				return fmt.Errorf("no qdisc at %s: %w", web.HostInterface, err)
			}
			return n.Netlink().QdiscDel(list[0])
		}},
		{"no route", "rate missing, route missing", `host has no route to .* \(expected: ip route add `, func() error {
			_, err := n.Output("ip", "route", "del", web.Address(false).String())
			return err
		}},
		{"a setting", "settings changed, rate missing, route missing", `rp_filter`, func() error {
			return n.SetSysctl("net/ipv4/conf/"+web.HostInterface+"/rp_filter", "0")
		}},
		{"down", "settings changed, rate missing, interface down, route missing, address missing", `is down \(expected: ip link set `, func() error {
			return n.Netlink().LinkSetDown(host)
		}},
		{"another's alias", "interface is another's", `has the alias "somebody"`, func() error {
			return n.Netlink().LinkSetAlias(host, "somebody")
		}},
		{"no interface", "interface missing", "the node has no interface " + web.HostInterface, func() error {
			return n.Netlink().LinkDel(host)
		}},
	} {
		must(t, damage.do())
		has(damage.what, ask(), row(web, "- +10M/1500k +2d2h +"+damage.word), "(?m)^test/web: .*"+damage.reason)
	}
	must(t, web.Namespace.Delete())
	// While another test of this machine has a network namespace with the same inode number,
	// which the kernel gives out again, nobody can say that the sandbox is gone.
	await(t, "the sandbox to be gone", func() error {
		text := ask()
		for _, expr := range []string{row(web, "- +10M/1500k +2d2h +sandbox gone, interface missing"), `(?m)^test/web: network namespace .* exists no more`} {
			if !regexp.MustCompile(expr).MatchString(text) {
				return fmt.Errorf("%s is not in %s", expr, text)
			}
		}
		return nil
	})

	await(t, "the document to say so", func() error {
		var all agent.AttachedPods
		must(t, json.Unmarshal([]byte(get(n.Flatnetd("status", "pods", "-o", "json"))(t)), &all))
		if len(all.Pods) != 2 || all.Pods[0].Pod != "test/db" || all.Pods[1].Pod != "test/web" {
			return fmt.Errorf("it is %+v", all)
		}
		w := all.Pods[1]
		if w.HostInterface != web.HostInterface || len(w.Addresses) != 2 || w.Bandwidth == nil || w.Bandwidth.Egress.BitsPerSecond != 1_500_000 ||
			w.Network != "flatnet" || w.ContainerID != web.Namespace.Name || w.Interface != "eth0" || len(w.Faults) != 2 || w.Faults[0].Word != "sandbox gone" {
			return fmt.Errorf("it says of web %+v", w)
		}
		if d := all.Pods[0]; d.Bandwidth != nil {
			return fmt.Errorf("it says of db %+v", d)
		}
		return nil
	})
}
