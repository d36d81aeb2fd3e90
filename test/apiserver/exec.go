package apiserver

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/gorilla/websocket"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/httpstream/spdy"
)

// Execution is a command that somebody wants executed in a pod, and what comes of it.
type Execution struct {
	Namespace, Pod, Container string
	Command                   []string

	Out, ErrOut []byte
	Exit        int
}

// The protocols of output: over a websocket each message begins with the number of its
// stream; over SPDY streams are SPDY's own.
const (
	overWebsocket = "v5.channel.k8s.io"
	overSPDY      = "v4.channel.k8s.io"
)

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

// exec executes over a websocket, or over SPDY where that is asked for.
func (s *Server) exec(w http.ResponseWriter, r *http.Request, e *Execution) {
	e.Container, e.Command = r.URL.Query().Get("container"), r.URL.Query()["command"]
	if r.Method == http.MethodPost {
		s.execSPDY(w, r, e)
		return
	}
	if s.NoWebsockets {
		refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: "unable to upgrade: missing upgrade headers in request"})
		return
	}
	upgrader := websocket.Upgrader{Subprotocols: []string{overWebsocket}, ReadBufferSize: 1 << 10, WriteBufferSize: 4 << 10}
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // it has answered
	}
	defer c.Close()
	s.Execute(r.Context(), e)
	// Who has gone away misses the rest.
	const piece = 32 << 10
	for _, part := range []struct {
		stream byte
		text   []byte
	}{{outStream, e.Out}, {errStream, e.ErrOut}, {statusStream, e.status()}} {
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

// execSPDY executes for who opens three streams.
func (s *Server) execSPDY(w http.ResponseWriter, r *http.Request, e *Execution) {
	if _, err := httpstream.Handshake(r, w, []string{overSPDY}); err != nil {
		return // it has answered
	}
	opened := make(chan httpstream.Stream, 3)
	c := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, replied <-chan struct{}) error {
		go func() {
			<-replied
			opened <- stream
		}()
		return nil
	})
	if c == nil {
		return // it has answered
	}
	defer c.Close()
	streams := map[string]httpstream.Stream{}
	for len(streams) < 3 {
		select {
		case stream := <-opened:
			streams[stream.Headers().Get(v1.StreamType)] = stream
		case <-c.CloseChan():
			return
		}
	}
	s.Execute(r.Context(), e)
	for of, text := range map[string][]byte{v1.StreamTypeStdout: e.Out, v1.StreamTypeStderr: e.ErrOut} {
		_, _ = streams[of].Write(text)
		_ = streams[of].Close()
	}
	_, _ = streams[v1.StreamTypeError].Write(e.status())
	_ = streams[v1.StreamTypeError].Close()
	<-c.CloseChan() // when the other end has read all
}

// status is how the execution has ended, as it is said after all output.
func (e *Execution) status() []byte {
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
	return said
}
