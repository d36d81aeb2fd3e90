package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
)

// ServeHTTP implements [http.Handler]. Without Serve, watches end at once.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	watching, streaming := query.Get("watch") != "", query.Get("sendInitialEvents") != ""
	of, namespace, name := resourceAt(r.URL.Path)
	selected, err := parseSelection(query.Get("labelSelector"), query.Get("fieldSelector"))
	selected.namespace = namespace
	core, newer := isEvents(r.URL.Path)
	inNamespace, pod, executing := ofPod(r.URL.Path, "exec")
	ofNamespace, logged, logging := ofPod(r.URL.Path, "log")
	call := r.Method + " " + r.URL.Path
	if watching {
		call += " watch"
	}
	s.mu.Lock()
	s.calls = append(s.calls, call)
	refusal, version, server := s.refusal, s.version, s.server
	var there []Object
	if err == nil && name == "" {
		for _, o := range s.objects[of] {
			if selected.has(o) {
				there = append(there, o)
			}
		}
	}
	one := s.objects[of][types.NamespacedName{Namespace: namespace, Name: name}]
	s.mu.Unlock()
	switch {
	case refusal != nil:
		refuse(w, refusal)
	case err != nil:
		refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: call + ": " + err.Error()})
	case s.Execute != nil && executing:
		s.exec(w, r, &Execution{Namespace: inNamespace, Pod: pod})
	case s.Log != nil && logging:
		_, _ = io.WriteString(w, s.Log(ofNamespace, logged, query.Get("previous") == "true"))
	case r.Method == http.MethodPost && (core || newer):
		s.post(w, r, core)
	case s.Controllers && r.Method == http.MethodPatch && of != nil:
		s.patch(w, r, of, types.NamespacedName{Namespace: namespace, Name: strings.TrimSuffix(name, "/status")})
	case s.Controllers && of != nil && of.path == leasesPath && r.Method != http.MethodGet:
		s.write(w, r, of, types.NamespacedName{Namespace: namespace, Name: name})
	case s.Admit != nil && of != nil && (r.Method == http.MethodPost || r.Method == http.MethodDelete):
		s.write(w, r, of, types.NamespacedName{Namespace: namespace, Name: name})
	case strings.HasPrefix(r.URL.Path, notInstalled):
		refuse(w, &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: "the server could not find the requested resource"})
	case r.Method != http.MethodGet || of == nil:
		refuse(w, &metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: call + " is not list or watch of what is known here"})
	case name != "" && one == nil:
		refuse(w, &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: call + ": not found"})
	case name != "":
		s.writer(w, r, of, false).one(one)
	case !watching:
		page, next, left := pageOf(there, query)
		s.writer(w, r, of, false).list(page, metav1.ListMeta{ResourceVersion: strconv.Itoa(version), Continue: next, RemainingItemCount: left})
	case streaming && !s.Streams:
		refuse(w, &metav1.Status{Code: http.StatusUnprocessableEntity, Reason: metav1.StatusReasonInvalid, Message: "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"})
	default:
		out := s.writer(w, r, of, true)
		from, _ := strconv.Atoi(query.Get("resourceVersion"))
		if streaming {
			for _, o := range there {
				out.event(watch.Added, o)
			}
			from = version
			end := of.one.DeepCopyObject().(Object)
			end.SetResourceVersion(strconv.Itoa(version))
			end.SetAnnotations(map[string]string{metav1.InitialEventsAnnotationKey: "true"})
			out.event(watch.Bookmark, end)
		}
		s.follow(out, server, selected, from)
	}
}

// notInstalled is where the definitions of a group would be that nobody has installed.
const notInstalled = "/apis/policy.networking.k8s.io/"

// post stores an event. Those of the newer group are forgotten at once.
func (s *Server) post(w http.ResponseWriter, r *http.Request, keep bool) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // nobody waits for an answer
	}
	if keep {
		o, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		e, is := o.(*v1.Event)
		switch {
		case err != nil || !is:
			refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: fmt.Sprintf("a %T is posted to %s: %v", o, r.URL.Path, err)})
			return
		case !s.create(e):
			refuse(w, &metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonAlreadyExists, Message: "event " + e.Name + " already exists"})
			return
		}
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // as it is stored
}

// follow sends the events after a version until the server goes away.
func (s *Server) follow(out *writer, server *http.Server, selected selection, from int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.server == server && s.server != nil {
		if from < s.compacted {
			out.event(watch.Error, &metav1.Status{Status: metav1.StatusFailure, Code: http.StatusGone, Reason: metav1.StatusReasonExpired, Message: "too old resource version"})
			out.flush()
			return
		}
		fresh := s.events
		if len(fresh) > 0 {
			fresh = fresh[max(0, from+1-fresh[0].version):] // versions have no gaps
		}
		// Who reads slowly does not keep others waiting.
		s.mu.Unlock()
		for _, e := range fresh {
			from = e.version
			if e.of != out.of {
				continue
			}
			if kind, o := selected.told(e); o != nil {
				out.event(kind, o)
			}
		}
		out.flush()
		s.mu.Lock()
		for s.server == server && s.version == from {
			s.more.Wait()
		}
	}
}

// writer answers one call in the format that was asked for.
type writer struct {
	http.ResponseWriter
	of     *resource
	format runtime.SerializerInfo
}

func (s *Server) writer(w http.ResponseWriter, r *http.Request, of *resource, watching bool) *writer {
	mediaType := runtime.ContentTypeJSON
	if s.Protobuf && strings.Contains(r.Header.Get("Accept"), runtime.ContentTypeProtobuf) {
		mediaType = runtime.ContentTypeProtobuf
	}
	format, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if watching && mediaType != runtime.ContentTypeJSON {
		mediaType += ";stream=watch"
	}
	w.Header().Set("Content-Type", mediaType)
	return &writer{w, of, format}
}

func (w *writer) list(objects []Object, about metav1.ListMeta) {
	list := w.of.list.DeepCopyObject()
	items := make([]runtime.Object, len(objects))
	for i, o := range objects {
		items[i] = o
	}
	if err := meta.SetList(list, items); err != nil {
		panic(fmt.Sprintf("apiserver: making a %T: %v", list, err))
	}
	reflect.ValueOf(list).Elem().FieldByName("ListMeta").Set(reflect.ValueOf(about))
	// An answer that cannot be written is missed by who waits for it.
	_ = w.encoder(w.format.Serializer, list).Encode(list, w)
}

// one answers a single object, of which somebody else may have the same one.
func (w *writer) one(o Object) {
	_ = w.encoder(w.format.Serializer, o).Encode(o.DeepCopyObject(), w)
}

func (w *writer) event(kind watch.EventType, object runtime.Object) {
	// To encode is to write the kind into the object for a moment, and others may be
	// sending the same one.
	own := reflect.New(reflect.TypeOf(object).Elem())
	own.Elem().Set(reflect.ValueOf(object).Elem())
	object = own.Interface().(runtime.Object)
	raw, err := runtime.Encode(w.encoder(w.format.Serializer, object), object)
	if err != nil {
		panic(fmt.Sprintf("apiserver: encoding %T: %v", object, err))
	}
	frames := w.format.StreamSerializer.NewFrameWriter(w)
	e := &metav1.WatchEvent{Type: string(kind), Object: runtime.RawExtension{Raw: raw}}
	_ = w.encoder(w.format.StreamSerializer.Serializer, e).Encode(e, frames)
}

func (w *writer) flush() { w.ResponseWriter.(http.Flusher).Flush() }

// encoder encodes an object in the version of its group.
func (w *writer) encoder(s runtime.Encoder, o runtime.Object) runtime.Encoder {
	version := v1.SchemeGroupVersion
	if t := reflect.TypeOf(o); t == reflect.TypeOf(w.of.one) || t == reflect.TypeOf(w.of.list) {
		version = w.of.group
	}
	return scheme.Codecs.EncoderForVersion(s, version)
}

// refuse answers in JSON, which every client reads.
func refuse(w http.ResponseWriter, status *metav1.Status) {
	w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	status = status.DeepCopy() // which others are answered with at the same time
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	status.Status = metav1.StatusFailure
	w.WriteHeader(int(status.Code))
	json.NewEncoder(w).Encode(status)
}
