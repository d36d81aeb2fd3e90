package apiwatch

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
)

// Nodes are all nodes, each a *v1.Node that has nothing but what is named here:
//
//	metadata  name, uid, resourceVersion, creationTimestamp, deletionTimestamp, labels
//	spec      podCIDR, podCIDRs, unschedulable, taints
//	status    addresses
//
// (An API server that answers in JSON although protobuf is preferred is believed all
// of it.) Both calls read the answer as it comes, a Node at a time, and not with
// client-go's decoders: those have a list in memory as a whole, 70 MB for 5,000
// nodes, and then once more as objects. To ask for the list in pages would not help.
// An API server answers what it has in its own memory (resourceVersion 0) as one,
// whatever the limit; in pages it asks etcd for all nodes, once for each flatnetd
// that starts.
func (c *Client) Nodes() Resource { return Resource{c.listNodes, c.watchNodes} }

func (c *Client) askForNodes(ctx context.Context, o metav1.ListOptions) (io.ReadCloser, error) {
	var timeout time.Duration
	if o.TimeoutSeconds != nil {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	return c.core.Get().Resource("nodes").VersionedParams(&o, c.codec).Timeout(timeout).Stream(ctx)
}

func (c *Client) listNodes(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	body, err := c.askForNodes(ctx, o)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	list, err := readNodeList(bufio.NewReaderSize(body, bufferSize))
	if err != nil {
		return nil, fmt.Errorf("reading the list of nodes: %w", err)
	}
	return list, nil
}

// bufferSize is about that of a Node, in bytes.
const bufferSize = 16 << 10

// readNodeList reads a NodeList. The kind comes before the content, as with all that
// Kubernetes encodes.
func readNodeList(r *bufio.Reader) (*internalversion.List, error) {
	start, err := r.Peek(len(magic))
	if err != nil {
		return nil, cut(err)
	}
	if string(start) != magic {
		return readJSONNodeList(r)
	}
	if _, err := r.Discard(len(magic)); err != nil {
		return nil, err
	}
	var list *internalversion.List
	kind := ""
	envelope := stream{Reader: r}
	for {
		number, size, err := envelope.next()
		switch {
		case errors.Is(err, io.EOF) && list == nil:
			return nil, io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return nil, err
		}
		switch number {
		case 1:
			var message []byte
			if message, err = envelope.read(size); err == nil {
				kind, err = readKind(message)
			}
		case 2:
			if kind != "NodeList" {
				return nil, noList(kind)
			}
			list = &internalversion.List{}
			err = readItems(io.LimitedReader{R: r, N: int64(min(size, 1<<62))}, list)
		default:
			err = envelope.skip(size)
		}
		if err != nil {
			return nil, err
		}
	}
}

func noList(kind string) error { return fmt.Errorf("the API server answered with a %q", kind) }

// readItems reads the message of a NodeList.
func readItems(r io.LimitedReader, list *internalversion.List) error {
	items := stream{Reader: bufio.NewReaderSize(&r, bufferSize)}
	for {
		number, size, err := items.next()
		switch {
		case errors.Is(err, io.EOF) && r.N > 0:
			return io.ErrUnexpectedEOF
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if number != 1 && number != 2 {
			if err := items.skip(size); err != nil {
				return err
			}
			continue
		}
		message, err := items.read(size)
		if err != nil {
			return err
		}
		if number == 1 {
			if err := list.ListMeta.Unmarshal(message); err != nil {
				return fmt.Errorf("decoding metadata: %w", err)
			}
			continue
		}
		n, err := readNode(message)
		if err != nil {
			return err
		}
		list.Items = append(list.Items, n)
	}
}

func readJSONNodeList(r io.Reader) (*internalversion.List, error) {
	var found v1.NodeList
	if err := json.NewDecoder(r).Decode(&found); err != nil {
		return nil, fmt.Errorf("decoding JSON: %w", err)
	}
	if found.Kind != "NodeList" {
		return nil, noList(found.Kind)
	}
	list := &internalversion.List{ListMeta: found.ListMeta, Items: make([]runtime.Object, len(found.Items))}
	for i := range found.Items {
		list.Items[i] = &found.Items[i]
	}
	return list, nil
}

func (c *Client) watchNodes(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	body, err := c.askForNodes(ctx, o)
	if net.IsProbableEOF(err) || net.IsTimeout(err) {
		// As client-go has it: what breaks here may do so a moment later too.
		return watch.NewEmptyWatch(), nil
	}
	if err != nil {
		return nil, err
	}
	events := &nodeEvents{body: body, stream: stream{Reader: bufio.NewReaderSize(body, bufferSize)}}
	return watch.NewStreamWatcher(events, apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")), nil
}

// nodeEvents reads the answer to a watch. It is a [watch.Decoder].
type nodeEvents struct {
	body io.Closer
	stream
	json *json.Decoder // of an answer in JSON
}

// Close implements [watch.Decoder].
func (e *nodeEvents) Close() { e.body.Close() }

// Decode implements [watch.Decoder].
func (e *nodeEvents) Decode() (watch.EventType, runtime.Object, error) {
	if e.json == nil {
		start, err := e.Peek(1)
		if err != nil {
			return "", nil, err
		}
		if start[0] != '{' { // of a frame this would be a length of gigabytes
			return e.decodeFrame()
		}
		e.json = json.NewDecoder(e.stream)
	}
	return e.decodeJSON()
}

// decodeFrame reads an event in protobuf, which has its length before it.
func (e *nodeEvents) decodeFrame() (watch.EventType, runtime.Object, error) {
	var length [4]byte
	if _, err := io.ReadFull(e.stream, length[:]); err != nil {
		return "", nil, err
	}
	message, err := e.read(uint64(binary.BigEndian.Uint32(length[:])))
	if err != nil {
		return "", nil, err
	}
	var kind watch.EventType
	var object []byte
	err = fields(message, func(f field) error {
		switch f.number {
		case 1:
			kind = watch.EventType(f.bytes)
		case 2: // a runtime.RawExtension
			return fields(f.bytes, func(f field) error {
				if f.number == 1 {
					object = f.bytes
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return "", nil, fmt.Errorf("decoding an event: %w", err)
	}
	of, content, err := readEnvelope(object)
	if err != nil {
		return "", nil, fmt.Errorf("decoding an event: %w", err)
	}
	switch {
	case kind == watch.Error && of == "Status":
		status := &metav1.Status{}
		return kind, status, status.Unmarshal(content)
	case known(kind) && of == "Node":
		n, err := readNode(content)
		if err != nil {
			return "", nil, err
		}
		return kind, n, nil
	}
	return "", nil, unknownEvent(kind, of)
}

func (e *nodeEvents) decodeJSON() (watch.EventType, runtime.Object, error) {
	var event metav1.WatchEvent
	if err := e.json.Decode(&event); err != nil {
		return "", nil, err
	}
	var of metav1.TypeMeta
	if err := json.Unmarshal(event.Object.Raw, &of); err != nil {
		return "", nil, fmt.Errorf("decoding an event: %w", err)
	}
	kind := watch.EventType(event.Type)
	var object runtime.Object
	switch {
	case kind == watch.Error && of.Kind == "Status":
		object = &metav1.Status{}
	case known(kind) && of.Kind == "Node":
		object = &v1.Node{}
	default:
		return "", nil, unknownEvent(kind, of.Kind)
	}
	return kind, object, json.Unmarshal(event.Object.Raw, object)
}

func known(kind watch.EventType) bool {
	switch kind {
	case watch.Added, watch.Modified, watch.Deleted, watch.Bookmark:
		return true
	}
	return false
}

func unknownEvent(kind watch.EventType, of string) error {
	return fmt.Errorf("decoding an event: %q of a %q is not one of a Node", kind, of)
}
