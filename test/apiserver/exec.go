package apiserver

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Execution is a command that somebody wants executed in a pod, and what comes of it.
type Execution struct {
	Namespace, Pod, Container string
	Command                   []string

	Out, ErrOut []byte
	Exit        int
}

// streams is the protocol in which output comes over a websocket: each message begins
// with the number of its stream.
const streams = "v5.channel.k8s.io"

const (
	outStream = iota + 1
	errStream
	statusStream
)

// ofPod returns the pod that a path is about, where it asks for a part of it: "exec" or
// "log".
func ofPod(path, part string) (namespace, pod string, is bool) {
	words := strings.Split(strings.TrimPrefix(path, "/api/v1/namespaces/"), "/")
	if len(words) != 4 || words[1] != "pods" || words[3] != part {
		return "", "", false
	}
	return words[0], words[2], true
}

// exec executes over a websocket. SPDY is refused as by a proxy that does not know it.
func (s *Server) exec(w http.ResponseWriter, r *http.Request, e *Execution) {
	if r.Method != http.MethodGet {
		refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: "exec is over websockets only"})
		return
	}
	e.Container, e.Command = r.URL.Query().Get("container"), r.URL.Query()["command"]
	upgrader := websocket.Upgrader{Subprotocols: []string{streams}, ReadBufferSize: 1 << 10, WriteBufferSize: 4 << 10}
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.Close()
	s.Execute(r.Context(), e)
	status := &metav1.Status{Status: metav1.StatusSuccess}
	if e.Exit != 0 {
		status = &metav1.Status{
			Status: metav1.StatusFailure, Reason: "NonZeroExitCode", Message: "command terminated with non-zero exit code",
			Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: strconv.Itoa(e.Exit)}}},
		}
	}
	said, err := json.Marshal(status)
	if err != nil {
		panic("apiserver: encoding a status: " + err.Error())
	}
	// Who has gone away misses the rest.
	const piece = 32 << 10
	for _, part := range []struct {
		stream byte
		text   []byte
	}{{outStream, e.Out}, {errStream, e.ErrOut}, {statusStream, said}} {
		for text := part.text; len(text) > 0; {
			n := min(piece, len(text))
			if c.WriteMessage(websocket.BinaryMessage, append([]byte{part.stream}, text[:n]...)) != nil {
				return
			}
			text = text[n:]
		}
	}
	_ = c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
}
