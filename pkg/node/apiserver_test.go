package node

import (
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/client-go/rest"

	"github.com/flatnet-cni/flatnet/pkg/apiwatch"
	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// apiServer is an API server on a socket in the test's directory, which can go
// away and come back.
type apiServer struct {
	*apiserver.Server
	t      *testing.T
	socket string
}

func newAPIServer(t *testing.T, streams bool) *apiServer {
	s := &apiServer{apiserver.New(), t, filepath.Join(t.TempDir(), "api")}
	s.Streams = streams
	t.Cleanup(s.Stop)
	return s
}

// client returns a client of the server, whether it is there or not.
func (s *apiServer) client() *apiwatch.Client {
	s.t.Helper()
	client, err := apiwatch.NewClientFor(&rest.Config{
		Host:      "http://apiserver",
		Transport: &http.Transport{DialContext: (&dialer{s.socket}).dial},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return client
}

// start makes the server answer.
func (s *apiServer) start() {
	s.t.Helper()
	os.Remove(s.socket)
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		s.t.Fatal(err)
	}
	// Nobody listening is then "connection refused", as with TCP.
	listener.SetUnlinkOnClose(false)
	s.Serve(listener)
}
