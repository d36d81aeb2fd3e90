// Package plugin is flatnet's CNI plugin: the verbs, each readable from top to
// bottom, on top of the concepts that do the work.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/ipam"
	"github.com/flatnet-cni/flatnet/pkg/addresses"
	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/closed"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
	"github.com/flatnet-cni/flatnet/pkg/namespace"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
	"github.com/flatnet-cni/flatnet/pkg/ports"
	"github.com/flatnet-cni/flatnet/pkg/rules"
)

// Plugin implements [cni.Verbs].
type Plugin struct {
	// Step is called before every change of kernel, rules or files, with its
	// name; an error takes the place of the change. Tests inject faults with
	// it; nil changes nothing.
	Step func(operation string) error
	// Sysctls is where sysctls are files; see [kernel.Netlink].
	Sysctls string
}

var _ cni.Verbs = (*Plugin)(nil)

// job is one execution for one network, or one attachment of it.
type job struct {
	*Plugin
	request   *cni.Request
	config    *netconf.Config
	arguments *netconf.Arguments
	key       attachment.Key
	records   *attachment.Directory
	rules     *rules.Rules
	closed    *closed.Table
	ports     *ports.Table
	policed   bool // there are policies, of whatever pods
	log       *slog.Logger
	closeLog  func()

	namespace *namespace.Namespace // the pod's; nil where there is none
	kernel    *kernel.Netlink
	living    *namespace.Living
}

// begin reads the configuration. The caller ends the job.
func (p *Plugin) begin(r *cni.Request) (*job, error) {
	config, arguments, err := netconf.Parse(r)
	if err != nil {
		return nil, err
	}
	j := &job{
		Plugin: p, request: r, config: config, arguments: arguments,
		key:     attachment.Key{Network: r.Network, ContainerID: r.ContainerID, Interface: r.IfName},
		records: attachment.OpenDirectory(config.StateDirectory),
		rules:   &rules.Rules{Step: p.Step},
		closed:  &closed.Table{Step: p.Step},
		living:  &namespace.Living{},
	}
	j.ports = &ports.Table{Lock: ports.LockIn(config.StateDirectory), Living: j.attached, Step: p.Step}
	j.records.Step = p.Step
	j.log, j.closeLog = openLog(config.Log)
	j.log = j.log.With("verb", r.Command, "network", r.Network)
	if r.ContainerID != "" {
		j.log = j.log.With("container", r.ContainerID, "interface", r.IfName)
	}
	if pod := arguments.Pod(); pod != "" {
		j.log = j.log.With("pod", pod, "uid", arguments.UID)
	}
	return j, nil
}

// end logs how the job went, and lets go of everything.
func (j *job) end(err *error) {
	if *err != nil {
		j.log.Error("failed", "code", cni.Code(*err), "error", *err)
		*err = j.named(*err)
	} else {
		j.log.Info("done")
	}
	if j.kernel != nil {
		j.kernel.Close()
	}
	if j.namespace != nil {
		j.namespace.Close()
	}
	j.closeLog()
}

// named puts the pod's name in front of an error's message, where it is known.
func (j *job) named(err error) error {
	if pod := j.arguments.Pod(); pod != "" {
		message, details := cni.Texts(err)
		return cni.Fail(cni.Code(err), fmt.Sprintf("pod %s: %s", pod, message), details)
	}
	return err
}

// openNamespace opens the pod's namespace.
func (j *job) openNamespace() error {
	inside, err := namespace.Open(j.request.Netns)
	if err == nil {
		j.namespace = inside
	}
	return err
}

// namespaceError is what the user sees of an error of openNamespace.
func (j *job) namespaceError(err error) error {
	details := "CNI_NETNS has to be the path of the pod's network namespace"
	if errors.Is(err, namespace.ErrOwn) {
		details = "pods of the host network need no CNI plugin; " + details
	}
	return cni.Fail(types.ErrInvalidNetNS, fmt.Sprintf("CNI_NETNS %q: %v", j.request.Netns, err), details)
}

// openKernel opens the kernel edge, with the pod's side if its namespace is open.
func (j *job) openKernel() error {
	netlink, err := kernel.NewNetlink(j.namespace)
	if err != nil {
		return cni.Wrap(cni.CodeKernel, err, "the plugin needs CAP_NET_ADMIN and CAP_SYS_ADMIN")
	}
	netlink.Step, netlink.Sysctls = j.Step, j.Sysctls
	j.kernel = netlink
	return nil
}

// source returns where the attachment's addresses come from.
func (j *job) source() addresses.Source {
	return addresses.From(j.request, j.config, j.options())
}

func (j *job) options() addresses.Options {
	o := addresses.Options{Log: j.log, Step: j.Step, Gone: func(r ipam.Reservation) bool {
		key := attachment.Key{Network: j.request.Network, ContainerID: r.Owner.ContainerID, Interface: r.Owner.Interface}
		return j.gone(key, attachment.Sandbox(r.Sandbox), r.Since)
	}}
	if j.namespace != nil {
		id := j.namespace.Identity()
		o.Sandbox = ipam.Sandbox{Path: j.request.Netns, Device: id.Device, Inode: id.Inode}
	}
	return o
}

// settling is longer than an ADD can take to make its interfaces.
const settling = 2 * time.Minute

// gone reports whether an attachment's pod provably does not exist any more:
// its namespace does not, or its host interface, which lives as long as the
// pod's end, has had time to be made and is not there. The second matters
// because the kernel gives a namespace's number to the next one.
func (j *job) gone(k attachment.Key, s attachment.Sandbox, since time.Time) bool {
	if j.living.Gone(s.Path, namespace.Identity{Device: s.Device, Inode: s.Inode}) {
		return true
	}
	if time.Since(since) < settling {
		return false
	}
	other := j.of(k)
	record, _ := j.records.Get(k)
	names, err := other.hostInterfaces(record)
	return err == nil && len(names) == 0
}

// need is what a record's attachment wants of the nftables rules.
func need(r attachment.Record) rules.Need {
	return rules.Need{Addresses: r.Wire.Addresses, Masquerade: r.Masquerade, Exempt: r.Exempt}
}

// undo is what has to be done backwards if a verb fails.
type undo []func() error

func (u *undo) push(f func() error) { *u = append(*u, f) }

// run undoes everything, last first, and joins what went wrong.
func (u *undo) run() error {
	var errs []error
	for i := len(*u) - 1; i >= 0; i-- {
		errs = append(errs, (*u)[i]())
	}
	*u = nil
	return errors.Join(errs...)
}

// Status reports whether ADD could succeed: code 50 where not, code 51 where
// besides the pods that exist are cut off (SPEC.md, "STATUS"). It has to be
// cheap: runtimes call it every few seconds, some twice a second.
func (p *Plugin) Status(ctx context.Context, r *cni.Request) (err error) {
	j, err := p.begin(r)
	if err != nil {
		return err
	}
	defer j.end(&err)
	if err := j.openKernel(); err != nil {
		return cni.Fail(types.ErrPluginNotAvailable, err.Error(), "")
	}
	if err := j.able(); err != nil {
		return err
	}
	if err := j.source().Status(ctx); err != nil {
		return err
	}
	if !j.records.Others(attachment.Key{}) {
		return nil // the first ADD will set what the node needs
	}
	for _, ipv6 := range j.poolFamilies() {
		if err := j.kernel.Inspect(kernel.Forwarding{IPv6: ipv6}); err != nil {
			return cni.Fail(types.ErrLimitedConnectivity, "pods cannot reach beyond their node: "+err.Error(),
				"something switched forwarding off; switch it on again with the command shown")
		}
	}
	return nil
}

// poolFamilies returns false for IPv4 and true for IPv6, for each that the
// built-in allocator serves.
func (j *job) poolFamilies() []bool {
	var families []bool
	seen := map[bool]bool{}
	for _, set := range j.config.IPAM.Pool {
		if ipv6 := set[0].First.Is6(); !seen[ipv6] {
			seen[ipv6] = true
			families = append(families, ipv6)
		}
	}
	return families
}

// subnets returns the networks that the lease's addresses are in.
func subnets(l *addresses.Lease) []netip.Prefix {
	var all []netip.Prefix
	for _, ip := range l.IPs {
		all = append(all, ip.Prefix.Masked())
	}
	return all
}
