#!/usr/bin/env bash
# Usage: deploy/kind/check.sh
#
# Tries the network of the cluster that kubectl talks to, and says what it saw:
# what every agent says of its node; a Service over four pods, by its name; and
# that each pod sees the own address of the pod that asks it. The pods are in a
# namespace that is removed at the end. Fails with the first thing that is not
# as it should be.
set -euo pipefail

for pod in $(kubectl -n flatnet get pods -l app.kubernetes.io/name=flatnetd -o name); do
	status=$(kubectl -n flatnet exec "$pod" -- flatnetd status)
	echo "$status" | head -n 1
	if ! grep -qx 'no problems' <<<"$status"; then
		echo "$status"
		exit 1
	fi
done

namespace=flatnet-check-$RANDOM
kubectl create namespace "$namespace" >/dev/null
trap 'kubectl delete namespace "$namespace" --wait=false >/dev/null' EXIT
k() { kubectl -n "$namespace" "$@"; }

k create deployment web --image=registry.k8s.io/e2e-test-images/agnhost:2.59 --replicas=4 -- /agnhost netexec --http-port=8080 >/dev/null
k expose deployment web --port=80 --target-port=8080 >/dev/null
k rollout status deployment/web --timeout=3m
pods=$(k get pods -l app=web -o name)
client=$(head -n 1 <<<"$pods")

# The name is known, and the Service served, some time after the pods are ready.
k exec "$client" -- curl -sS --retry 30 --retry-delay 1 --retry-all-errors -o /dev/null http://web/hostname
answers=$(k exec "$client" -- sh -c 'for i in $(seq 60); do curl -sS --max-time 5 http://web/hostname || exit 1; echo; done')
echo "60 requests to http://web, answered by"
sort <<<"$answers" | uniq -c
if [ "$(sort -u <<<"$answers" | wc -l)" != 4 ]; then
	echo "not all four pods answered" >&2
	exit 1
fi

own=$(k get "$client" -o jsonpath='{.status.podIPs[*].ip}')
node() { k get "$1" -o jsonpath='{.spec.nodeName}'; }
for pod in $(tail -n +2 <<<"$pods"); do
	for address in $(k get "$pod" -o jsonpath='{.status.podIPs[*].ip}'); do
		case $address in *:*) host="[$address]" ;; *) host=$address ;; esac
		seen=$(k exec "$client" -- curl -sS --max-time 5 "http://$host:8080/clientip")
		seen=${seen%:*} seen=${seen#[} seen=${seen%]} # without the port
		echo "from $(node "$client") to $address on $(node "$pod"): seen as $seen"
		case " $own " in *" $seen "*) ;; *)
			echo "the pod has the address $own" >&2
			exit 1
			;;
		esac
	done
done
echo "all is well"
