package main

import (
	"os"
	"path/filepath"
	"time"
)

// row is one thing that is done to the machine.
type row struct {
	name   string
	before func() error // not measured: configuration
	action func() error
	after  func() error
	limit  time.Duration // how long it may take until all is right, 75 s if it is 0
	// always says that later rows of the same manager build on this one.
	always bool
	check  func(*lab, Report) error
}

// do is an action of commands.
func do(lines ...string) func() error { return func() error { return all(lines...) } }

// write is a preparation: files, and commands.
func write(files map[string]string, lines ...string) func() error {
	return func() error {
		for path, content := range files {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				return err
			}
		}
		return all(lines...)
	}
}

const rebootRow = "reboot of the machine"

const networkdUnderlay = `[Match]
Name=eth0

[Network]
Address=172.30.0.1/24
Address=fd00:30::1/64
Gateway=172.30.0.254
Gateway=fd00:30::fe
IPv6AcceptRA=no
`

const connection = `[connection]
id=underlay
type=ethernet
interface-name=eth0

[ipv4]
method=manual
address1=172.30.0.1/24,172.30.0.254

[ipv6]
method=manual
address1=fd00:30::1/64,fd00:30::fe
`

// ruleset is an administrator's own, with what flatnet needs accepted.
const ruleset = `#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input {
		type filter hook input priority filter; policy drop;
		ct state established,related accept
		ct status dnat accept
		iif lo accept
		meta l4proto { icmp, ipv6-icmp } accept
		udp dport 4789 accept
		ip saddr { 10.244.0.0/16, 172.30.0.0/16, 172.31.0.0/16 } accept
		ip6 saddr { fd00:244::/32, fd00:30::/64, fd00:31::/64 } accept
	}
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ip saddr 10.244.0.0/16 accept
		ip daddr 10.244.0.0/16 accept
		ip6 saddr fd00:244::/32 accept
		ip6 daddr fd00:244::/32 accept
	}
}
`

// trust is what firewalld has to be told.
var trust = []string{
	"firewall-cmd -q --permanent --zone=trusted --add-source=10.244.0.0/16",
	"firewall-cmd -q --permanent --zone=trusted --add-source=fd00:244::/32",
	"firewall-cmd -q --permanent --zone=public --add-port=4789/udp",
}

// settled is how long a row may take where something is known not to come back: what
// is repaired by an event has been by then, and what only the resync finds has not.
const settled = 15 * time.Second

var rows = []row{
	{name: "nothing is done", action: func() error { time.Sleep(5 * time.Second); return nil }},

	{name: "firewalld: start, not configured", limit: settled, action: do("systemctl start firewalld"), always: true},
	{name: "firewalld: told of pods, reload", limit: settled, action: do(append(trust, "firewall-cmd -q --reload")...), always: true},
	{name: "firewalld: reload", limit: settled, action: do("firewall-cmd -q --reload")},
	{name: "firewalld: complete reload", limit: settled, action: do("firewall-cmd -q --complete-reload")},
	{name: "firewalld: restart", limit: settled, action: do("systemctl restart firewalld")},
	{name: "firewalld: FlushAllOnReload=no, reload", limit: settled,
		before: do("sed -i 's/^FlushAllOnReload=.*/FlushAllOnReload=no/' /etc/firewalld/firewalld.conf", "systemctl restart firewalld"), action: do("firewall-cmd -q --reload")},
	{name: "firewalld: FlushAllOnReload=no, restart", limit: settled, action: do("systemctl restart firewalld")},
	{name: "firewalld: stop", limit: settled, action: do("systemctl stop firewalld"), always: true},

	{name: "systemd-networkd: first start, without drop-ins", always: true,
		before: write(map[string]string{"/etc/systemd/network/10-underlay.network": networkdUnderlay}),
		action: do("chmod 644 /etc/systemd/network/*", "rm -rf /run/systemd/network /run/systemd/networkd.conf.d", "systemctl start systemd-networkd")},
	{name: "systemd-networkd: reconfigure before it read them", action: do("networkctl reconfigure eth0")},
	{name: "systemd-networkd: restart, with drop-ins", action: do("systemctl restart systemd-networkd")},
	{name: "systemd-networkd: reload", action: do("networkctl reload")},
	{name: "systemd-networkd: reconfigure eth0", action: do("networkctl reconfigure eth0")},
	{name: "systemd-networkd: restart again", action: do("systemctl restart systemd-networkd")},
	{name: "systemd-networkd: stop", always: true, action: do("systemctl stop systemd-networkd.socket systemd-networkd"), after: underlay},

	{name: "NetworkManager: first start", always: true,
		before: write(map[string]string{"/etc/NetworkManager/system-connections/underlay.nmconnection": connection}),
		action: do("systemctl start NetworkManager", "nm-online -q -s -t 60 || true")},
	{name: "NetworkManager: restart", action: do("systemctl restart NetworkManager", "nm-online -q -s -t 60 || true")},
	{name: "NetworkManager: general reload", action: do("nmcli general reload")},
	{name: "NetworkManager: connection up again", action: do("nmcli connection up underlay")},
	{name: "NetworkManager: device reapply", action: do("nmcli device reapply eth0")},
	{name: "NetworkManager: stop", always: true, action: do("systemctl stop NetworkManager"), after: underlay},

	{name: "docker: start", limit: settled, always: true, action: do("systemctl start docker")},
	{name: "docker: restart", limit: settled, action: do("systemctl restart docker")},
	{name: "docker: stop", limit: settled, action: do("systemctl stop docker.socket docker"), always: true},

	{name: "ufw: enable", limit: settled, always: true,
		before: do("sed -i 's/^IPV6=.*/IPV6=yes/' /etc/default/ufw", "ufw allow 4789/udp", "ufw allow 8080/tcp"), action: do("ufw --force enable")},
	{name: "ufw: reload", limit: settled, action: do("ufw reload")},
	{name: "ufw: disable", limit: settled, action: do("ufw disable"), always: true},

	{name: "nftables.service: start, own ruleset", always: true,
		limit: settled, before: write(map[string]string{"/etc/nftables.conf": ruleset}), action: do("systemctl start nftables")},
	{name: "nftables.service: restart", limit: settled, action: do("systemctl restart nftables")},
	{name: "nftables.service: reload", limit: settled, action: do("systemctl reload nftables")},
	{name: "nftables.service: stop", limit: settled, action: do("systemctl stop nftables"), always: true},

	{name: "udev: trigger of all interfaces", action: do("udevadm trigger --subsystem-match=net --action=add", "udevadm settle")},
	{name: "systemd-sysctl: restart", action: do("systemctl restart systemd-sysctl")},
}
