package apiserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// patch changes an object by a JSON merge patch (RFC 7396). One that names another version,
// or another object of the name, is a conflict.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, of *resource, name types.NamespacedName) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // nobody waits for an answer
	}
	bad := func(err error) {
		refuse(w, &metav1.Status{Code: http.StatusBadRequest, Reason: metav1.StatusReasonBadRequest, Message: fmt.Sprintf("%s: %v", r.URL.Path, err)})
	}
	var change map[string]any
	if err := json.Unmarshal(body, &change); err != nil {
		bad(err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.objects[of][name]
	if before == nil {
		refuse(w, &metav1.Status{Code: http.StatusNotFound, Reason: metav1.StatusReasonNotFound, Message: r.URL.Path + ": not found"})
		return
	}
	if meta, is := change["metadata"].(map[string]any); is {
		for key, has := range map[string]string{"resourceVersion": before.GetResourceVersion(), "uid": string(before.GetUID())} {
			if wants, is := meta[key]; is && wants != has {
				refuse(w, &metav1.Status{Code: http.StatusConflict, Reason: metav1.StatusReasonConflict, Message: fmt.Sprintf("%s: %s is %s, not %s", r.URL.Path, key, has, wants)})
				return
			}
		}
	}
	text, err := json.Marshal(before)
	var all any
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err == nil {
		text, err = json.Marshal(merge(all, change))
	}
	after := reflect.New(reflect.TypeOf(of.one).Elem()).Interface().(Object)
	if err == nil {
		err = json.Unmarshal(text, after)
	}
	if err != nil {
		bad(err)
		return
	}
	s.note(after, true)
	s.writer(w, r, of, false).one(s.objects[of][name])
}

// merge is MergePatch of RFC 7396.
func merge(target, patch any) any {
	change, is := patch.(map[string]any)
	if !is {
		return patch
	}
	all, is := target.(map[string]any)
	if !is {
		all = map[string]any{}
	}
	for key, value := range change {
		if value == nil {
			delete(all, key)
		} else {
			all[key] = merge(all[key], value)
		}
	}
	return all
}
