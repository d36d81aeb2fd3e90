package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/attachment"
	"github.com/flatnet-cni/flatnet/pkg/cni"
	"github.com/flatnet-cni/flatnet/pkg/kernel"
)

// GC removes what is left of attachments that no longer exist (SPEC.md, "GC"):
// all of this network that are not in the runtime's list. A runtime that gives
// no list gets only that removed whose pod provably is gone. One
// failure does not keep the others from being removed.
func (p *Plugin) GC(ctx context.Context, r *cni.Request) (err error) {
	j, err := p.begin(r)
	if err != nil {
		return err
	}
	defer j.end(&err)
	if err := j.openKernel(); err != nil {
		return err
	}
	records, err := j.records.List(r.Network)
	if err != nil {
		return cni.Wrap(cni.CodeState, err, "look at the permissions of stateDir")
	}
	var errs []error
	for _, record := range records {
		if !j.stale(record) {
			continue
		}
		if err := j.of(record.Key).detach(ctx); err != nil {
			errs = append(errs, fmt.Errorf("removing %s: %w", record.Key, err))
			continue
		}
		j.log.Info("removed stale attachment", "attachment", record.Key.String(), "pod", record.Pod)
	}
	errs = append(errs, j.removeUnrecorded(), j.records.SweepTorn(tornAge), j.source().Collect(ctx))
	return cni.Wrap(cni.CodeKernel, errors.Join(errs...), "GC can be repeated")
}

// tornAge is older than anything that is still being written.
const tornAge = time.Minute

// of returns the job for another attachment of the network.
func (j *job) of(k attachment.Key) *job {
	other, request := *j, *j.request
	request.ContainerID, request.IfName, request.Netns = k.ContainerID, k.Interface, ""
	other.request, other.key, other.namespace = &request, k, nil
	return &other
}

func (j *job) stale(r attachment.Record) bool {
	if j.config.ValidAttachments != nil {
		return !j.isValid(r.Key)
	}
	return j.gone(r.Key, r.Sandbox, r.Since)
}

func (j *job) isValid(k attachment.Key) bool {
	return slices.Contains(*j.config.ValidAttachments, types.GCAttachment{ContainerID: k.ContainerID, IfName: k.Interface})
}

// removeUnrecorded removes host interfaces of this network whose records were
// lost. An interface that exists has a pod's namespace at its other end, so
// without the runtime's list none is stale.
func (j *job) removeUnrecorded() error {
	if j.config.ValidAttachments == nil {
		return nil
	}
	links, err := j.kernel.LinksOfGroup()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		key, known := attachment.KeyOf(link.Alias)
		if !known || key.Network != j.request.Network || j.isValid(key) {
			continue
		}
		errs = append(errs, j.kernel.DeleteLink(kernel.Host, link.Name))
	}
	return errors.Join(errs...)
}
