package addresses

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	current "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/netconf"
)

// delegate executes another IPAM plugin with the environment and the complete
// configuration of this one.
//
// The CNI library's package invoke does the same; it also links an HTTP stack
// for tracing, which makes every ADD, delegated or not, slower to start by a
// quarter of a millisecond.
type delegate struct {
	request *cni.Request
	plugin  string
}

// Acquire implements [Source]. Where the plugin fails, or its result is of no
// use, it is run again with DEL, as the specification demands.
func (d *delegate) Acquire(ctx context.Context) (*Lease, error) {
	lease, err := d.add(ctx)
	if err != nil {
		return nil, errors.Join(err, d.Release(ctx))
	}
	return lease, nil
}

func (d *delegate) add(ctx context.Context) (*Lease, error) {
	output, err := d.run(ctx, "ADD")
	if err != nil {
		return nil, err
	}
	unusable := func(reason string) error {
		return cni.Fail(cni.CodeDelegate, fmt.Sprintf("IPAM plugin %s: unusable result: %s", d.plugin, reason), "")
	}
	raw, err := create.CreateFromBytes(output)
	if err != nil {
		// A result before 1.0.0 need not repeat the version.
		if raw, err = create.Create(d.request.Version, output); err != nil {
			return nil, unusable(err.Error())
		}
	}
	result, err := current.NewResultFromResult(raw)
	if err != nil {
		return nil, unusable(err.Error())
	}
	lease := &Lease{Routes: result.Routes, DNS: result.DNS}
	for _, ip := range result.IPs {
		prefix, ok := fromIPNet(ip.Address)
		if !ok {
			return nil, unusable(fmt.Sprintf("address %s", ip.Address.String()))
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		lease.IPs = append(lease.IPs, IP{Prefix: prefix, Gateway: gateway.Unmap()})
	}
	if len(lease.IPs) == 0 {
		return nil, unusable("no address")
	}
	for _, r := range lease.Routes {
		if err := netconf.ValidateRoute(r); err != nil {
			return nil, unusable(fmt.Sprintf("route to %s: %v", r.Dst.String(), err))
		}
	}
	return lease, nil
}

// Release implements [Source].
func (d *delegate) Release(ctx context.Context) error { return d.verb(ctx, "DEL") }

// Check implements [Source]; the plugin finds the addresses in prevResult.
func (d *delegate) Check(ctx context.Context, _ []netip.Addr) error { return d.verb(ctx, "CHECK") }

// Collect implements [Source].
func (d *delegate) Collect(ctx context.Context) error { return d.verb(ctx, "GC") }

// Status implements [Source].
func (d *delegate) Status(ctx context.Context) error { return d.verb(ctx, "STATUS") }

func (d *delegate) verb(ctx context.Context, verb string) error {
	_, err := d.run(ctx, verb)
	return err
}

// delegateTimeout bounds an execution of another plugin. A kubelet gives a
// sandbox 4 minutes and then kills what runs; before that, an error can still
// say what was waited for.
const delegateTimeout = time.Minute

// run executes the plugin and returns its standard output. Its standard error
// becomes ours.
func (d *delegate) run(ctx context.Context, verb string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, delegateTimeout)
	defer cancel()
	path, err := d.find()
	if err != nil {
		return nil, err
	}
	var stdout bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	// GC releases attachments that its own environment does not name.
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+verb, "CNI_CONTAINERID="+d.request.ContainerID,
		"CNI_IFNAME="+d.request.IfName, "CNI_NETNS="+d.request.Netns)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(d.request.Config), &stdout, os.Stderr
	err = cmd.Run()
	if err == nil {
		return stdout.Bytes(), nil
	}
	if ctx.Err() != nil {
		return nil, cni.Fail(types.ErrTryAgainLater, fmt.Sprintf("IPAM plugin %s: %s took too long", d.plugin, verb), "")
	}
	var exit *exec.ExitError
	var reported types.Error
	if errors.As(err, &exit) && json.Unmarshal(stdout.Bytes(), &reported) == nil && reported.Msg != "" {
		return nil, cni.Fail(reported.Code, fmt.Sprintf("IPAM plugin %s: %s", d.plugin, reported.Msg), reported.Details)
	}
	return nil, cni.Fail(cni.CodeDelegate, fmt.Sprintf("IPAM plugin %s: %s: %v", d.plugin, verb, err), strings.TrimSpace(stdout.String()))
}

func (d *delegate) find() (string, error) {
	if d.request.Path == "" {
		return "", cni.Fail(types.ErrInvalidEnvironmentVariables, "required env variables [CNI_PATH] missing",
			fmt.Sprintf("ipam.type %q is a plugin that has to be executed", d.plugin))
	}
	for _, directory := range filepath.SplitList(d.request.Path) {
		path := filepath.Join(directory, d.plugin)
		if info, err := os.Stat(path); directory != "" && err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	// Not "not found": container runtimes take a DEL that says so for done.
	return "", cni.Fail(cni.CodeDelegate, fmt.Sprintf("IPAM plugin %s is not in CNI_PATH %s", d.plugin, d.request.Path),
		"install it, or leave ipam.type away to use the built-in allocator")
}

func fromIPNet(n net.IPNet) (netip.Prefix, bool) {
	address, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	address = address.Unmap()
	if bits == 128 && address.Is4() {
		ones -= 96
	}
	prefix := netip.PrefixFrom(address, ones)
	return prefix, ok && bits > 0 && prefix.IsValid()
}
