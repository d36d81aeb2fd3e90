package service

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
)

// Events is a [Reporter] that makes Kubernetes Events, which `kubectl describe
// service` shows. It needs the right to create them.
type Events struct {
	Client *apiwatch.Client
	Node   string
	Log    *slog.Logger
}

// eventTimeout bounds the wait for the API server.
const eventTimeout = 10 * time.Second

// Report implements [Reporter], and does not wait. All nodes see the same, and give
// the event the same name, so that there is one and not one from each.
func (e *Events) Report(ctx context.Context, about Name, uid, reason, message string) {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s %s %s", uid, reason, message)
	now := metav1.Now()
	event := &v1.Event{
		ObjectMeta:     metav1.ObjectMeta{Namespace: about.Namespace, Name: fmt.Sprintf("%s.flatnet-%016x", about.Name, h.Sum64())},
		InvolvedObject: v1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: about.Namespace, Name: about.Name, UID: types.UID(uid)},
		Reason:         reason, Message: message, Type: v1.EventTypeWarning, Count: 1, FirstTimestamp: now, LastTimestamp: now,
		Source: v1.EventSource{Component: "flatnetd", Host: e.Node}, ReportingController: "flatnetd", ReportingInstance: e.Node,
	}
	go func() {
		ctx, cancel := context.WithTimeout(ctx, eventTimeout)
		defer cancel()
		err := e.Client.CreateEvent(ctx, event)
		if err != nil && !apierrors.IsAlreadyExists(err) && ctx.Err() == nil {
			e.Log.Warn("cannot make an event", "service", about.String(), "reason", reason, "error", err)
		}
	}()
}
