package service

import (
	"fmt"
	"log/slog"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/flatnet-cni/flatnet/test/apiserver"
	"github.com/flatnet-cni/flatnet/test/pace"
)

// TestEvents: two nodes that see the same make one event.
func TestEvents(t *testing.T) {
	server := apiserver.New()
	client := clientOf(t, server)
	list := server.Events
	for i, node := range []string{"n1", "n2"} {
		e := &Events{Client: client, Node: node, Log: slog.New(slog.DiscardHandler)}
		e.Report(t.Context(), Name{"default", "web"}, "7", "AddressConflict", "the same")
		if i == 1 {
			e.Report(t.Context(), Name{"default", "web"}, "7", "AddressConflict", "another")
		}
		if _, err := pace.Await(pace.Far(), func() error {
			if n := len(list()); n <= i {
				return fmt.Errorf("%d events, want %d", n, i+1)
			}
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	all := list()
	if len(all) != 2 || all[0].InvolvedObject.Kind != "Service" || all[0].InvolvedObject.Name != "web" || all[0].InvolvedObject.UID != "7" || all[0].Type != v1.EventTypeWarning {
		t.Errorf("events are %+v", all)
	}
}
