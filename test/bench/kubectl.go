package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	apps "k8s.io/api/apps/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/flatnet-cni/flatnet/test/apiserver"
)

// executing is how long a command in a pod takes: the way over API server, kubelet and
// runtime, and a program that starts there.
const executing = 100 * time.Millisecond

// What `kubectl flatnet status` may take, in the largest cluster.
const (
	overviewTime   = 10 * time.Second
	overviewMemory = 300
)

// measureKubectl asks all nodes of clusters how they are.
func measureKubectl(ctx context.Context, b *bench) (section, error) {
	found := section{table: table{head: []string{"nodes", "time in s", "peak memory in MB"}}}
	program := filepath.Join(b.ours, "kubectl-flatnet")
	if _, err := os.Stat(program); err != nil {
		b.missing = append(b.missing, program)
		return found, nil
	}
	for _, nodes := range b.amount.clusters {
		took, peak, err := b.overview(ctx, program, nodes)
		if err != nil {
			return found, fmt.Errorf("with %d nodes: %w", nodes, err)
		}
		found.table.rows = append(found.table.rows, []string{fmt.Sprint(nodes), fmt.Sprintf("%.2f", took.Seconds()), fmt.Sprintf("%.0f", peak/megabyte)})
		if nodes == b.amount.clusters[len(b.amount.clusters)-1] {
			found.ratios = []ratio{
				{what: fmt.Sprintf("status of %d nodes", nodes), shown: fmt.Sprintf("%.2f s", took.Seconds()), target: fmt.Sprintf("≤ %g s", overviewTime.Seconds()), met: took <= overviewTime},
				{what: fmt.Sprintf("its peak memory, %d nodes", nodes), shown: fmt.Sprintf("%.0f MB", peak/megabyte), target: fmt.Sprintf("≤ %d MB", overviewMemory), met: peak <= overviewMemory*megabyte},
			}
		}
	}
	return found, nil
}

// overview returns how long `kubectl flatnet status` takes, and its peak memory in bytes.
func (b *bench) overview(ctx context.Context, program string, nodes int) (took time.Duration, peak float64, err error) {
	directory, err := b.directory("kubectl")
	if err != nil {
		return 0, 0, err
	}
	server := httptest.NewUnstartedServer(agents(nodes))
	if server.TLS, err = quickTLS(); err != nil {
		return 0, 0, err
	}
	server.StartTLS()
	defer server.Close()
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: server.URL, InsecureSkipTLSVerify: true}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench"}
	config.CurrentContext = "bench"
	kubeconfig, memory := filepath.Join(directory, "kubeconfig"), filepath.Join(directory, "bytes")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		return 0, 0, err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(b.floor, "peak"), program, "status", "--kubeconfig", kubeconfig, "--timeout", "5m")
	cmd.Env = append(os.Environ(), "PEAK_FILE="+memory)
	begin := time.Now()
	out, err := cmd.CombinedOutput()
	took = time.Since(begin)
	headline, _, _ := strings.Cut(string(out), "\n")
	if want := fmt.Sprintf("%d nodes: %d ready;", nodes, nodes); err != nil || !strings.HasPrefix(headline, want) {
		return 0, 0, fmt.Errorf("kubectl flatnet status says %q (%w), want %q", headline, err, want)
	}
	raw, err := os.ReadFile(memory)
	if err != nil {
		return 0, 0, err
	}
	peak, err = strconv.ParseFloat(string(raw), 64)
	return took, peak, err
}

// quickTLS is with a key that costs the stand-in little to use, since every question is a
// connection of its own, and it has the same processors as what is measured.
func quickTLS() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	raw, err := x509.CreateCertificate(rand.Reader, certificate, certificate, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("making a certificate: %w", err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}, nil
}

// agents is an API server of a cluster with a flatnetd on every node.
func agents(nodes int) *apiserver.Server {
	server := apiserver.New()
	server.Protobuf = true
	of := map[string]string{"app.kubernetes.io/name": "flatnetd"}
	server.Put(&apps.DaemonSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "flatnetd", Labels: of},
		Spec:       apps.DaemonSetSpec{Selector: &metav1.LabelSelector{MatchLabels: of}},
	})
	everybody := population{n: nodes}
	for i := 1; i <= nodes; i++ {
		server.Put(everybody.object(i))
		server.Put(&v1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "flatnet", Name: "flatnetd-" + nodeName(i), Labels: of},
			Spec:       v1.PodSpec{NodeName: nodeName(i), Containers: []v1.Container{{Name: "flatnetd"}}},
			Status:     v1.PodStatus{Phase: v1.PodRunning},
		})
	}
	server.Execute = func(ctx context.Context, e *apiserver.Execution) {
		select {
		case <-time.After(executing):
		case <-ctx.Done():
			return
		}
		e.Out = briefStatus(strings.TrimPrefix(e.Pod, "flatnetd-"), nodes)
	}
	return server
}

// briefStatus is what a flatnetd says in a cluster of two zones.
func briefStatus(node string, nodes int) []byte {
	raw, err := json.Marshal(map[string]any{
		"node": node, "version": "v1.2.3", "since": time.Unix(1700000000, 0), "ready": true, "source": "kubernetes", "fabric": "auto", "tunnel": "flatnet.vx",
		"addresses": []string{"172.30.0.1", "fd00:30::1"}, "podCIDRs": []string{"10.244.1.0/24", "fd00:244:1::/64"}, "podMTU": 1450,
		"pods":    []map[string]any{{"family": "IPv4", "total": 253, "used": 30}, {"family": "IPv6", "total": uint64(1<<64 - 1), "used": 30}},
		"objects": map[string]int{"desired": 4 * nodes, "present": 4 * nodes},
		"joined": []map[string]any{{"mode": "direct", "peers": nodes - nodes/2}, {"mode": "vxlan", "peers": nodes / 2, "names": []string{
			"n1", "n2", "n3", "n4", "n5", "n6", "n7", "n8", "n9", "n10", "n11", "n12", "n13", "n14", "n15", "n16"}}},
		"problems": []string{},
	})
	if err != nil {
		panic("encoding a status: " + err.Error())
	}
	return raw
}
