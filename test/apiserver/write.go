package apiserver

import (
	"fmt"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
)

// write creates or deletes an object, where Admit lets it. With a namespace goes all that
// is in it.
func (s *Server) write(w http.ResponseWriter, r *http.Request, of *resource, name types.NamespacedName) {
	if r.Method == http.MethodDelete {
		s.mu.Lock()
		there := s.objects[of][name]
		s.mu.Unlock()
		if there == nil {
			refuse(w, &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: r.URL.Path + ": not found"})
			return
		}
		s.Remove(there)
		if of.path == namespacesPath {
			s.empty(name.Name)
		}
		s.writer(w, r, of, false).one(there)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // nobody waits for an answer
	}
	decoded, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
	o, is := decoded.(Object)
	if err != nil || !is || resourceOf(o) != of {
		refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: fmt.Sprintf("a %T is posted to %s: %v", decoded, r.URL.Path, err)})
		return
	}
	o.SetNamespace(name.Namespace)
	if s.Admit != nil {
		if refusal := s.Admit(o); refusal != nil {
			refuse(w, refusal)
			return
		}
	}
	if !s.create(o) {
		refuse(w, &metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonAlreadyExists, Message: r.URL.Path + ": " + o.GetName() + " already exists"})
		return
	}
	w.Header().Set("Content-Type", r.Header.Get("Content-Type"))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(body) // as it was posted
}

// empty removes all that is in a namespace.
func (s *Server) empty(namespace string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for of, all := range s.objects {
		for name, o := range all {
			if name.Namespace == namespace && of.path != namespacesPath {
				s.note(o, false)
			}
		}
	}
}
