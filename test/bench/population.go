package main

import (
	"fmt"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// population is the nodes 1 to n of a large cluster, on one segment and with two
// families. Number 1 is the node that is measured; some others have moved, to other
// podCIDRs.
type population struct {
	n     int
	moved map[int]bool
}

// move gives the j-th of the peers that change its other podCIDRs, and returns it.
func (p *population) move(j int) (peer int) {
	const stride = 7919 // a prime: they are spread over the list
	peer = 2 + j*stride%(p.n-1)
	p.moved[peer] = !p.moved[peer]
	return peer
}

func nodeName(i int) string { return fmt.Sprint("n", i) }

func (p *population) addresses(i int) []string {
	return []string{fmt.Sprintf("172.30.%d.%d", i>>8, i&255), fmt.Sprintf("fd00:30::%x", i)}
}

func (p *population) podCIDRs(i int) []string {
	second, sixth := 64, 0x244
	if p.moved[i] {
		second, sixth = 128, 0x245
	}
	return []string{fmt.Sprintf("10.%d.%d.0/24", second+i>>8, i&255), fmt.Sprintf("fd00:%x:%x::/64", sixth, i)}
}

// file is the population as the file of nodes has it.
func (p *population) file() string {
	var text strings.Builder
	text.WriteString("nodes:\n")
	for i := 1; i <= p.n; i++ {
		fmt.Fprintf(&text, "- {name: %s, addresses: [%q, %q], podCIDRs: [%q, %q]}\n", nodeName(i),
			p.addresses(i)[0], p.addresses(i)[1], p.podCIDRs(i)[0], p.podCIDRs(i)[1])
	}
	return text.String()
}

// object is a node as Kubernetes has it, with all that a kubelet reports: 50 images,
// conditions, resources, and who manages which field.
func (p *population) object(i int) *v1.Node {
	name := nodeName(i)
	n := &v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, UID: types.UID(fmt.Sprintf("2f1f5c3e-0000-4000-8000-%012d", i)), CreationTimestamp: metav1.Unix(1700000000, 0),
			Labels: map[string]string{
				"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux", "kubernetes.io/hostname": name,
				"node.kubernetes.io/instance-type": "m5.2xlarge", "topology.kubernetes.io/region": "eu-central-1", "topology.kubernetes.io/zone": "eu-central-1a",
			},
			Annotations: map[string]string{
				"node.alpha.kubernetes.io/ttl": "0", "volumes.kubernetes.io/controller-managed-attach-detach": "true",
				"csi.volume.kubernetes.io/nodeid": fmt.Sprintf(`{"ebs.csi.aws.com":"i-%017d"}`, i),
			},
		},
		Spec: v1.NodeSpec{PodCIDR: p.podCIDRs(i)[0], PodCIDRs: p.podCIDRs(i), ProviderID: fmt.Sprintf("aws:///eu-central-1a/i-%017d", i)},
		Status: v1.NodeStatus{
			Capacity: resources("8", "32Gi", "110"), Allocatable: resources("7910m", "30Gi", "110"),
			NodeInfo: v1.NodeSystemInfo{
				MachineID: fmt.Sprintf("ec2%029d", i), SystemUUID: fmt.Sprintf("ec2%029d", i), BootID: fmt.Sprintf("9a0c64a6-0000-4000-8000-%012d", i),
				KernelVersion: "6.12.30-amd64", OSImage: "Debian GNU/Linux 12 (bookworm)", ContainerRuntimeVersion: "containerd://2.1.4",
				KubeletVersion: "v1.34.1", OperatingSystem: "linux", Architecture: "amd64",
			},
			Addresses: []v1.NodeAddress{{Type: v1.NodeHostName, Address: name}},
		},
	}
	for _, a := range p.addresses(i) {
		n.Status.Addresses = append(n.Status.Addresses, v1.NodeAddress{Type: v1.NodeInternalIP, Address: a})
	}
	for _, kind := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure, v1.NodeReady} {
		n.Status.Conditions = append(n.Status.Conditions, v1.NodeCondition{
			Type: kind, Status: v1.ConditionFalse, LastHeartbeatTime: metav1.Unix(1700000000, 0), LastTransitionTime: metav1.Unix(1700000000, 0),
			Reason: "KubeletHasSufficient" + string(kind), Message: "kubelet has sufficient resources available",
		})
	}
	for image := range 50 {
		repository := fmt.Sprintf("registry.example.org/team-%d/application-%d", image%7, image)
		n.Status.Images = append(n.Status.Images, v1.ContainerImage{
			Names:     []string{fmt.Sprintf("%s@sha256:%064x", repository, image), fmt.Sprintf("%s:v1.%d.0", repository, image)},
			SizeBytes: int64(image) << 20,
		})
	}
	for _, manager := range []string{"kubelet", "kube-controller-manager"} {
		fields := `{"f:metadata":{"f:annotations":{".":{}},"f:labels":{".":{}}},"f:status":{"f:conditions":{` + strings.Repeat(`"f:lastHeartbeatTime":{},`, 60) + `"f:type":{}}}}`
		n.ManagedFields = append(n.ManagedFields, metav1.ManagedFieldsEntry{
			Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1", FieldsV1: &metav1.FieldsV1{Raw: []byte(fields)},
		})
	}
	return n
}

func resources(cpu, memory, pods string) v1.ResourceList {
	return v1.ResourceList{
		v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory), v1.ResourcePods: resource.MustParse(pods),
		v1.ResourceEphemeralStorage: resource.MustParse("100Gi"), "hugepages-1Gi": resource.MustParse("0"), "hugepages-2Mi": resource.MustParse("0"),
	}
}
