package netconf

import (
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/flatnet-cni/flatnet/pkg/cni"
)

// Arguments are what CNI_ARGS says.
type Arguments struct {
	IP, MAC                    string // requested for the pod; "" where not
	PodNamespace, PodName, UID string // from Kubernetes
}

// Pod returns "namespace/name" where both are known, or "".
func (a *Arguments) Pod() string {
	if a.PodNamespace == "" || a.PodName == "" {
		return ""
	}
	return a.PodNamespace + "/" + a.PodName
}

// maxArgument bounds what is taken over into an interface's alias, in bytes. It
// is the length of the longest name that Kubernetes gives.
const maxArgument = 253

// ParseArguments reads CNI_ARGS: pairs K=V, separated by semicolons (SPEC.md,
// section 2). A key that is not known is an error unless IgnoreUnknown=1 or
// true stands anywhere among the pairs. What could be read is returned beside
// the error.
func ParseArguments(text string) (*Arguments, error) {
	a := &Arguments{}
	if text == "" {
		return a, nil
	}
	ignore := false
	var unknown []string
	for _, pair := range strings.Split(text, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok || key == "" || strings.Contains(value, "=") {
			return a, cni.Fail(types.ErrInvalidEnvironmentVariables,
				fmt.Sprintf("invalid pair %q in CNI_ARGS", pair), "CNI_ARGS is K=V;K=V")
		}
		switch key {
		case "IgnoreUnknown":
			switch strings.ToLower(value) {
			case "1", "true":
				ignore = true
			case "0", "false":
			default:
				return a, cni.Fail(types.ErrInvalidEnvironmentVariables,
					fmt.Sprintf("invalid value %q of IgnoreUnknown in CNI_ARGS", value), "it is 1, true, 0 or false")
			}
		case "IP":
			a.IP = value
		case "MAC":
			a.MAC = value
		case "K8S_POD_NAMESPACE":
			a.PodNamespace = clean(value)
		case "K8S_POD_NAME":
			a.PodName = clean(value)
		case "K8S_POD_UID":
			a.UID = clean(value)
		case "K8S_POD_INFRA_CONTAINER_ID":
		default:
			unknown = append(unknown, pair)
		}
	}
	if len(unknown) > 0 && !ignore {
		return a, cni.Fail(types.ErrInvalidEnvironmentVariables,
			fmt.Sprintf("unknown args %q in CNI_ARGS", unknown), "add IgnoreUnknown=1 to have them ignored")
	}
	return a, nil
}

// clean makes a value fit for logs and an interface's alias, whatever it holds.
func clean(value string) string {
	value = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '?'
		}
		return r
	}, value)
	return value[:min(len(value), maxArgument)]
}
