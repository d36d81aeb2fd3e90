{{/* flatnetd's container. deploy/base/daemonset.yaml says why each thing is there; here are
    the same, and a test compares. */}}
{{- define "flatnet.container" -}}
name: flatnetd
image: {{ include "flatnet.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  {{- if .Values.cleanup.enabled }}
  - cleanup
  {{- else }}
  - --node-name=$(NODE_NAME)
  {{- end }}
env:
  - name: NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  - name: FLATNETD_SYSCTL_DIR
    value: /host/proc/sys
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
envFrom:
  - configMapRef:
      name: flatnet
{{- if .Values.monitoring.enabled }}
ports:
  {{- if .Values.services.enabled }}
  - name: proxy-metrics
    containerPort: {{ include "flatnet.port" .Values.services.metrics }}
    hostPort: {{ include "flatnet.port" .Values.services.metrics }}
  {{- end }}
  - name: metrics
    containerPort: {{ .Values.metrics.port | int }}
    hostPort: {{ .Values.metrics.port | int }}
{{- end }}
{{- if not .Values.cleanup.enabled }}
livenessProbe:
  httpGet:
    host: 127.0.0.1
    port: {{ .Values.metrics.port | int }}
    path: /healthz
  initialDelaySeconds: 10
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    host: 127.0.0.1
    port: {{ .Values.metrics.port | int }}
    path: /readyz
  periodSeconds: 5
  timeoutSeconds: 5
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsUser: 0
  runAsGroup: 0
  privileged: false
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
    add: [NET_ADMIN, NET_RAW, SYS_PTRACE, DAC_OVERRIDE{{ if ne .Values.fabric.datapath "kernel" }}, BPF, PERFMON{{ end }}{{ if eq .Values.fabric.datapath "ebpf" }}, SYS_RESOURCE{{ end }}{{ if .Values.bgp.config }}, NET_BIND_SERVICE{{ end }}]
  seccompProfile:
    type: RuntimeDefault
  appArmorProfile:
    type: Unconfined
  seLinuxOptions:
    type: spc_t
volumeMounts:
  # Under the node's own paths, so that what flatnetd says of them is true there.
  - name: cni-bin
    mountPath: {{ .Values.cni.binDir | quote }}
  - name: cni-conf
    mountPath: {{ .Values.cni.confDir | quote }}
  - name: var-lib-flatnet
    mountPath: /var/lib/flatnet
  - name: run
    mountPath: /run
    mountPropagation: HostToContainer
  - name: sysctl-net
    mountPath: /host/proc/sys/net
  {{- if .Values.bgp.config }}
  - name: bgp
    mountPath: /etc/flatnet/bgp
    readOnly: true
  {{- end }}
  {{- if .Values.bgp.passwordsSecret }}
  - name: bgp-passwords
    mountPath: /etc/flatnet/bgp-passwords
    readOnly: true
  {{- end }}
  {{- if .Values.loadBalancer.pools }}
  - name: loadbalancer
    mountPath: /etc/flatnet/loadbalancer
  {{- end }}
{{- end }}
