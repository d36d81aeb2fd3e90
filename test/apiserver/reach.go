package apiserver

import (
	"fmt"
	"net"
	"os"
)

// Listen answers at an address of the network namespace that the caller is in, until Stop.
func (s *Server) Listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err == nil {
		s.Serve(l)
	}
	return err
}

// WriteKubeconfig writes a file that leads to a server at an address.
func WriteKubeconfig(path, address string) error {
	return os.WriteFile(path, fmt.Appendf(nil, `
apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "http://%s"}}]
contexts: [{name: c, context: {cluster: c, user: c}}]
users: [{name: c, user: {}}]
current-context: c
`, address), 0o600)
}
