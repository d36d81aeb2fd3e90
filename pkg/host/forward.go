package host

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/google/nftables"

	"github.com/flatnet-cni/flatnet/pkg/problem"
	"github.com/flatnet-cni/flatnet/pkg/requirements"
)

// applyForward sees to it that no chain of hook forward drops pods' packets by
// its policy. Docker, ufw and others set the policy of iptables' FORWARD chain to
// DROP, and an accept in a table of one's own does not help: a packet has to be
// accepted by every base chain. So iptables' chain, whose rules everybody
// shares, gets marked accepts; other people's tables are only reported.
//
// The accepts are appended, not inserted before the rules of others: they take
// the place of the policy and no more. What somebody drops by a rule (network
// policies, docker's isolation, what a user wrote) stays dropped.
//
// A program is executed only where there is such a policy, and for iptables'
// legacy variant, whose policy nothing else can tell, where its filter table is
// in use.
func (k *Keeper) applyForward(ctx context.Context, needs Needs) []Finding {
	prefixes := needs.forwarded()
	if len(prefixes) == 0 {
		return nil
	}
	var findings []Finding
	chains, foreign, err := lookAtChains()
	if err != nil {
		findings = append(findings, Finding{
			Kind: problem.ForwardChain, Object: "chains of hook forward", Problem: err.Error(),
			Hint: "look for chains with policy drop by hand: `nft list chains`",
		})
	}
	for _, c := range foreign {
		mine := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return !c.sees(p) || c.lets(p) })
		if len(mine) > 0 {
			findings = append(findings, foreignDrop(c, mine))
		}
	}
	for _, v := range variants {
		mine := slices.DeleteFunc(slices.Clone(prefixes), func(p netip.Prefix) bool { return p.Addr().Is6() != v.ipv6 })
		if len(mine) == 0 || !k.mayDrop(v, chains) {
			continue
		}
		if f, differs := k.acceptIn(ctx, v, mine, needs.Services); differs {
			findings = append(findings, f)
		}
	}
	return findings
}

// lookAtChains asks the kernel for iptables' chains and for those of others that
// drop. What one question found is of use where the other failed.
func lookAtChains() (iptables, foreign []baseChain, err error) {
	if !(requirements.Running{}).HasNftables() {
		return nil, nil, nil
	}
	c, err := nftables.New(nftables.AsLasting())
	if err != nil {
		return nil, nil, fmt.Errorf("opening nftables: %w", err)
	}
	defer c.CloseLasting()
	iptables, err = iptablesChains(c)
	foreign, foreignErr := foreignDrops(c)
	return iptables, foreign, errors.Join(err, foreignErr)
}

// forwarded returns the own podCIDRs of the families in use. A prefix of
// everything is none of a node's.
func (n Needs) forwarded() []netip.Prefix {
	var all []netip.Prefix
	for _, p := range n.OwnPodCIDRs {
		if p.Bits() > 0 && (p.Addr().Is4() && n.IPv4 || p.Addr().Is6() && n.IPv6) && !slices.Contains(all, p.Masked()) {
			all = append(all, p.Masked())
		}
	}
	return all
}

// lets reports whether a rule beside the chain lets a prefix pass. Whoever names
// pods' addresses there has thought of them.
func (c baseChain) lets(prefix netip.Prefix) bool {
	return slices.ContainsFunc(c.passes, func(p netip.Prefix) bool {
		return p.Bits() > 0 && p.Bits() <= prefix.Bits() && p.Contains(prefix.Addr())
	})
}

// foreignDrop reports a chain of somebody's own table.
func foreignDrop(c baseChain, prefixes []netip.Prefix) Finding {
	var commands []string
	for _, p := range prefixes {
		if c.table == "firewalld" {
			commands = append(commands, fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-source=%s", p))
			continue
		}
		family := "ip"
		if p.Addr().Is6() {
			family = "ip6"
		}
		for _, side := range []string{"saddr", "daddr"} {
			commands = append(commands, fmt.Sprintf("nft insert rule %s %s %s %s accept", c, family, side, p))
		}
	}
	more := ""
	hint := "flatnet does not change this table; let pods' packets pass there, and in the file that it is loaded from: "
	if c.table == "firewalld" {
		hint = "flatnet does not change firewalld's table; let pods' packets pass there: "
		commands = append(commands, "firewall-cmd --reload")
		// It chooses the zone by the source, so that what comes from pods of others
		// is not trusted by this.
		more = "; and in the same way the networks of the other nodes' pods, or one that has all of them; " +
			"with an overlay also its port (--vxlan-port): `firewall-cmd --permanent --add-port=4789/udp`"
	}
	found := "policy drop"
	if c.refuses != "" {
		found = "ending in " + c.refuses
	}
	return Finding{
		Kind: problem.ForwardChain, Object: "chain " + c.String(), Found: found, Wanted: "accept for " + joined(prefixes),
		Problem: "it may drop what pods send and receive",
		Hint:    hint + "`" + strings.Join(commands, " && ") + "`" + more,
	}
}

// mayDrop reports whether it is worth while to ask a variant's program.
func (k *Keeper) mayDrop(v variant, chains []baseChain) bool {
	if !v.nft {
		return k.usesLegacy(v)
	}
	return slices.ContainsFunc(chains, func(c baseChain) bool {
		return (c.drops || c.refuses != "") && c.serves(v)
	})
}

// usesLegacy reports whether a variant's filter table is in use in this network
// namespace.
func (k *Keeper) usesLegacy(v variant) bool {
	name := "ip_tables_names"
	if v.ipv6 {
		name = "ip6_tables_names"
	}
	// The thread's and not the process's: they may be in different namespaces.
	// Where the modules are not loaded there is no such file.
	raw, err := os.ReadFile(k.path("/proc/thread-self/net/" + name))
	return err == nil && slices.Contains(strings.Fields(string(raw)), "filter")
}

// acceptIn makes the marked rules of a variant's FORWARD chain those for the
// prefixes, and for Services where these are on, where its policy is to drop.
func (k *Keeper) acceptIn(ctx context.Context, v variant, prefixes []netip.Prefix, services bool) (f Finding, differs bool) {
	accepted := joined(prefixes)
	if services {
		accepted += " and for connections to Services"
	}
	f = Finding{
		Kind: problem.ForwardChain, Object: "chain FORWARD of " + v.program, Found: "policy DROP",
		Wanted: fmt.Sprintf("accept for %s, marked %q", accepted, ruleComment),
	}
	wanted := acceptRules(prefixes, services)
	program, present, err := k.read(ctx, v)
	if err != nil {
		f.Problem = err.Error()
		if errors.Is(err, exec.ErrNotFound) {
			f.Problem = v.program + " is not installed where flatnetd runs"
		}
		f.Hint = "pods' packets may be dropped; let them pass: `" + shellAll(v.program, wanted) + "`"
		return f, true
	}
	missing, surplus := present.difference(wanted)
	obstacle := present.obstacle(wanted)
	if !present.drops {
		// Nothing is to be appended; but what Red Hat's default rules end in rejects
		// as well as a policy would drop.
		f.Found, missing, surplus = "policy ACCEPT", nil, nil
		if obstacle == nil {
			return f, false
		}
	}
	if len(missing)+len(surplus) == 0 && obstacle == nil {
		return f, false
	}
	if present.drops {
		f.Found += fmt.Sprintf(", %d of %d rules missing, %d outdated", len(missing), len(wanted), len(surplus))
	}
	var errs []error
	// First what is missing: a node's traffic passes at all times.
	for _, rule := range missing {
		_, err := k.run(ctx, program, command("-A", rule)...)
		errs = append(errs, err)
	}
	for _, rule := range surplus {
		_, err := k.run(ctx, program, command("-D", rule)...)
		errs = append(errs, err)
	}
	switch err := errors.Join(errs...); {
	case err != nil:
		f.Problem = err.Error()
		f.Hint = "pods' packets may be dropped; let them pass: `" + shellAll(program, missing) + "`"
	case obstacle != nil:
		f.Problem = fmt.Sprintf("the rule `-A FORWARD %s` comes first and drops what pods send and receive", strings.Join(obstacle, " "))
		f.Hint = fmt.Sprintf("that rule is not flatnet's; remove it (`%s`) or let pods' packets pass before it",
			shell(program, append([]string{"-D", "FORWARD"}, obstacle...)))
	default:
		f.Repaired = true
	}
	return f, true
}

// removeForward deletes the marked rules from every FORWARD chain, whatever its
// policy is by now.
func (k *Keeper) removeForward(ctx context.Context) error {
	chains, _, err := lookAtChains()
	errs := []error{err}
	for _, v := range variants {
		present := k.usesLegacy(v)
		if v.nft {
			present = slices.ContainsFunc(chains, func(c baseChain) bool {
				return c.serves(v)
			})
		}
		if !present {
			continue
		}
		program, forward, err := k.read(ctx, v)
		if errors.Is(err, exec.ErrNotFound) {
			// Then it has added nothing either.
			k.log().Warn("rules of FORWARD not looked at: program is not installed", "program", v.program, "comment", ruleComment)
			continue
		}
		errs = append(errs, err)
		_, surplus := forward.difference(nil)
		for _, rule := range surplus {
			_, err := k.run(ctx, program, command("-D", rule)...)
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("removing rules %q from FORWARD: %w", ruleComment, err)
	}
	return nil
}

func joined(prefixes []netip.Prefix) string {
	var words []string
	for _, p := range prefixes {
		words = append(words, p.String())
	}
	return strings.Join(words, ", ")
}

// shellAll writes the commands that append rules.
func shellAll(program string, rules [][]string) string {
	var commands []string
	for _, rule := range rules {
		commands = append(commands, shell(program, append([]string{"-A", "FORWARD"}, rule...)))
	}
	return strings.Join(commands, " && ")
}
