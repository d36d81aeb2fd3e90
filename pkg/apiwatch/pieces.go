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
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
)

// kind is a kind of objects that is read as the answer comes, an object at a time, and
// of each what flatnet looks at. client-go's decoders have a list in memory as a whole,
// 70 MB for 5,000 nodes, and then once more as objects. To ask for the list in pages
// would not help. An API server answers what it has in its own memory
// (resourceVersion 0) as one, whatever the limit; in pages it asks etcd for all
// objects, once for each flatnetd that starts.
type kind struct {
	path string // "/api/v1/nodes"
	name string // "Node"
	// selectors are of fields: the first that the API server knows the fields of is
	// taken. None is all objects.
	selectors []string
	// reads returns what reads the objects of one answer.
	reads func() reads
}

// reads reads an object, of which the bytes are somebody else's afterwards.
type reads struct {
	protobuf func(message []byte) (runtime.Object, error) // nil where there is none
	json     func(text []byte) (runtime.Object, error)
}

// pieces returns the Resource of a kind.
func (c *Client) pieces(of kind) Resource {
	var selector atomic.Int64 // of the kind's, the one taken
	ask := func(ctx context.Context, o metav1.ListOptions) (io.ReadCloser, error) {
		for {
			i := selector.Load()
			o.FieldSelector = ""
			if i < int64(len(of.selectors)) {
				o.FieldSelector = of.selectors[i]
			}
			body, err := c.ask(ctx, of.path, o)
			if !apierrors.IsBadRequest(err) || o.FieldSelector == "" {
				return body, err
			}
			// "field label not supported": an older API server.
			selector.CompareAndSwap(i, i+1)
		}
	}
	return Resource{
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			body, err := ask(ctx, o)
			if err != nil {
				return nil, err
			}
			defer body.Close()
			list, err := readList(bufio.NewReaderSize(body, bufferSize), of)
			if err != nil {
				return nil, fmt.Errorf("reading the list %s: %w", of.path, err)
			}
			return list, nil
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.Watch = true
			body, err := ask(ctx, o)
			if net.IsProbableEOF(err) || net.IsTimeout(err) {
				// As client-go has it: what breaks here may do so a moment later too.
				return watch.NewEmptyWatch(), nil
			}
			if err != nil {
				return nil, err
			}
			told := newEvents(body, of)
			return watch.NewStreamWatcher(told, apierrors.NewClientErrorReporter(http.StatusInternalServerError, http.MethodGet, "ClientWatchDecoding")), nil
		},
	}
}

func (c *Client) ask(ctx context.Context, path string, o metav1.ListOptions) (io.ReadCloser, error) {
	var timeout time.Duration
	if o.TimeoutSeconds != nil {
		timeout = time.Duration(*o.TimeoutSeconds) * time.Second
	}
	return c.core.Get().AbsPath(path).VersionedParams(&o, c.codec).Timeout(timeout).Stream(ctx)
}

// bufferSize is about that of a Node, in bytes.
const bufferSize = 16 << 10

// readList reads a list. In protobuf the kind comes before the content, as with all
// that Kubernetes encodes.
func readList(r *bufio.Reader, of kind) (*internalversion.List, error) {
	start, err := r.Peek(len(magic))
	if err != nil {
		return nil, cut(err)
	}
	if string(start) != magic {
		return readJSONList(r, of)
	}
	if _, err := r.Discard(len(magic)); err != nil {
		return nil, err
	}
	var list *internalversion.List
	name := ""
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
				name, err = readKind(message)
			}
		case 2:
			read := of.reads().protobuf
			if name != of.name+"List" || read == nil {
				return nil, noList(name)
			}
			list = &internalversion.List{}
			err = readItems(io.LimitedReader{R: r, N: int64(min(size, 1<<62))}, list, read)
		default:
			err = envelope.skip(size)
		}
		if err != nil {
			return nil, err
		}
	}
}

// undecoded says which object cannot be decoded, as far as its metadata can be.
func undecoded(kind string, of *metav1.ObjectMeta, err error) error {
	name := of.Name
	if of.Namespace != "" {
		name = of.Namespace + "/" + name
	}
	if name == "" {
		return fmt.Errorf("decoding a %s: %w", kind, err)
	}
	return fmt.Errorf("decoding %s %s: %w", kind, name, err)
}

func noList(kind string) error { return fmt.Errorf("the API server answered with a %q", kind) }

// readItems reads the message of a list.
func readItems(r io.LimitedReader, list *internalversion.List, read func([]byte) (runtime.Object, error)) error {
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
		o, err := read(message)
		if err != nil {
			return err
		}
		list.Items = append(list.Items, o)
	}
}

// readJSONList reads a list in JSON. Its kind may come after the items: of custom
// resources the fields are in the order of the alphabet.
func readJSONList(r io.Reader, of kind) (*internalversion.List, error) {
	list, name := &internalversion.List{}, ""
	decoder, read := json.NewDecoder(r), of.reads().json
	err := inJSON(decoder, '{', func() error {
		key, err := decoder.Token()
		if err != nil {
			return err
		}
		switch key {
		case "kind":
			return decoder.Decode(&name)
		case "metadata":
			return decoder.Decode(&list.ListMeta)
		case "items":
			if name != "" && name != of.name+"List" {
				return noList(name)
			}
			return inJSON(decoder, '[', func() error {
				var text json.RawMessage
				if err := decoder.Decode(&text); err != nil {
					return err
				}
				o, err := read(text)
				list.Items = append(list.Items, o)
				return err
			})
		}
		var other json.RawMessage
		return decoder.Decode(&other)
	})
	if err == nil && name != of.name+"List" {
		return nil, noList(name)
	}
	if err != nil {
		return nil, fmt.Errorf("decoding JSON: %w", cut(err))
	}
	return list, nil
}

// inJSON calls do with each part of what begins with a delimiter; null has none.
func inJSON(decoder *json.Decoder, begin json.Delim, do func() error) error {
	token, err := decoder.Token()
	switch {
	case err != nil:
		return err
	case token == nil:
		return nil
	case token != begin:
		return fmt.Errorf("there is %v and not %v", token, begin)
	}
	for decoder.More() {
		if err := do(); err != nil {
			return err
		}
	}
	_, err = decoder.Token()
	return err
}

// events reads the answer to a watch. It is a [watch.Decoder].
type events struct {
	body io.Closer
	stream
	kind string // of the objects
	read reads
	json *json.Decoder // of an answer in JSON
}

func newEvents(body io.ReadCloser, of kind) *events {
	return &events{body: body, stream: stream{Reader: bufio.NewReaderSize(body, bufferSize)}, kind: of.name, read: of.reads()}
}

// Close implements [watch.Decoder].
func (e *events) Close() { e.body.Close() }

// Decode implements [watch.Decoder].
func (e *events) Decode() (watch.EventType, runtime.Object, error) {
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
func (e *events) decodeFrame() (watch.EventType, runtime.Object, error) {
	var length [4]byte
	if _, err := io.ReadFull(e.stream, length[:]); err != nil {
		return "", nil, err
	}
	message, err := e.stream.read(uint64(binary.BigEndian.Uint32(length[:])))
	if err != nil {
		return "", nil, err
	}
	var event watch.EventType
	var object []byte
	err = fields(message, func(f field) error {
		switch f.number {
		case 1:
			event = watch.EventType(f.bytes)
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
	case event == watch.Error && of == "Status":
		status := &metav1.Status{}
		return event, status, status.Unmarshal(content)
	case known(event) && of == e.kind && e.read.protobuf != nil:
		o, err := e.read.protobuf(content)
		if err != nil {
			return "", nil, err
		}
		return event, o, nil
	}
	return "", nil, e.unknown(event, of)
}

func (e *events) decodeJSON() (watch.EventType, runtime.Object, error) {
	var told metav1.WatchEvent
	if err := e.json.Decode(&told); err != nil {
		return "", nil, err
	}
	var of metav1.TypeMeta
	if err := json.Unmarshal(told.Object.Raw, &of); err != nil {
		return "", nil, fmt.Errorf("decoding an event: %w", err)
	}
	event := watch.EventType(told.Type)
	switch {
	case event == watch.Error && of.Kind == "Status":
		status := &metav1.Status{}
		return event, status, json.Unmarshal(told.Object.Raw, status)
	case known(event) && of.Kind == e.kind:
		o, err := e.read.json(told.Object.Raw)
		if err != nil {
			return "", nil, err
		}
		return event, o, nil
	}
	return "", nil, e.unknown(event, of.Kind)
}

func known(event watch.EventType) bool {
	switch event {
	case watch.Added, watch.Modified, watch.Deleted, watch.Bookmark:
		return true
	}
	return false
}

func (e *events) unknown(event watch.EventType, of string) error {
	return fmt.Errorf("decoding an event: %q of a %q is not one of a %s", event, of, e.kind)
}
