package apiserver

import (
	"slices"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// names are those of pods, with their namespaces.
func names(pods []v1.Pod) string {
	var all []string
	for _, p := range pods {
		all = append(all, p.Namespace+"/"+p.Name)
	}
	return strings.Join(all, " ")
}

func podOf(namespace, name string) *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
}

func TestPagesOfANamespace(t *testing.T) {
	for _, contentType := range []string{runtime.ContentTypeJSON, runtime.ContentTypeProtobuf} {
		t.Run(contentType, func(t *testing.T) {
			s := New()
			s.Protobuf = true
			c := client(t, s, contentType)
			for _, name := range []string{"e", "a", "d", "b", "c"} {
				s.Put(podOf("shop", name))
				s.Put(podOf("other", name))
			}
			options := metav1.ListOptions{Limit: 2}
			var pages []string
			for {
				page, err := c.CoreV1().Pods("shop").List(t.Context(), options)
				if err != nil {
					t.Fatal(err)
				}
				pages = append(pages, names(page.Items))
				if options.Continue = page.Continue; options.Continue == "" {
					break
				}
			}
			if want := []string{"shop/a shop/b", "shop/c shop/d", "shop/e"}; !slices.Equal(pages, want) {
				t.Errorf("pages are %q, want %q", pages, want)
			}
			whole, err := c.CoreV1().Pods("shop").List(t.Context(), metav1.ListOptions{Limit: 2, ResourceVersion: "0"})
			if err != nil || len(whole.Items) != 5 || whole.Continue != "" {
				t.Errorf("from the cache comes %v, %v", whole, err)
			}
			one, err := c.CoreV1().Pods("shop").Get(t.Context(), "d", metav1.GetOptions{})
			if err != nil || one.Name != "d" || one.Namespace != "shop" {
				t.Errorf("one is %v, %v", one, err)
			}
			if _, err := c.CoreV1().Pods("shop").Get(t.Context(), "f", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
}

func TestWrites(t *testing.T) {
	s := New()
	c := client(t, s, runtime.ContentTypeProtobuf)
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "trial"}}
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("without Admit: %v", err)
	}
	s.Admit = func(o Object) *metav1.Status {
		if p, is := o.(*v1.Pod); is {
			if p.Name == "no" {
				return &metav1.Status{Code: 403, Reason: metav1.StatusReasonForbidden, Message: "no"}
			}
			p.Status.Phase = v1.PodRunning
		}
		return nil
	}
	if _, err := c.CoreV1().Namespaces().Create(t.Context(), namespace, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pods := c.CoreV1().Pods("trial")
	for name, isRight := range map[string]func(error) bool{
		"no": apierrors.IsForbidden, "a": func(err error) bool { return err == nil },
	} {
		if _, err := pods.Create(t.Context(), podOf("", name), metav1.CreateOptions{}); !isRight(err) {
			t.Errorf("creating %s: %v", name, err)
		}
	}
	if _, err := pods.Create(t.Context(), podOf("", "a"), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Error(err)
	}
	if p, err := pods.Get(t.Context(), "a", metav1.GetOptions{}); err != nil || p.Status.Phase != v1.PodRunning {
		t.Error(p, err)
	}
	s.Put(podOf("other", "a"))
	if err := c.CoreV1().Namespaces().Delete(t.Context(), "trial", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := c.CoreV1().Namespaces().Delete(t.Context(), "trial", metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
	left, err := c.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil || names(left.Items) != "other/a" {
		t.Errorf("left is %s, %v", names(left.Items), err)
	}
}
