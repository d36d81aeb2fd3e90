{{/* What all objects are labelled with, without what Helm adds: pods have these alone, and
    are selected by the first, which can never change. */}}
{{- define "flatnet.ownLabels" -}}
app.kubernetes.io/name: flatnetd
app.kubernetes.io/part-of: flatnet
{{- end }}

{{- define "flatnet.helmLabels" -}}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end }}

{{- define "flatnet.labels" -}}
{{ include "flatnet.ownLabels" . }}
{{ include "flatnet.helmLabels" . }}
{{- end }}

{{- define "flatnet.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* The port of an address. */}}
{{- define "flatnet.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end }}

{{/* Data of the ConfigMap. The first are always there, as in deploy/base; of the others,
    those that are not what flatnetd does anyway. */}}
{{- define "flatnet.settings" -}}
{{- $v := .Values -}}
{{- $open := or $v.metrics.allAddresses $v.monitoring.enabled -}}
{{- $listen := printf "%s:%d" (ternary "" "127.0.0.1" $open) (int $v.metrics.port) -}}
{{- $proxyMetrics := $v.services.metrics -}}
{{- if and $v.services.enabled $v.monitoring.enabled -}}
{{- $proxyMetrics = printf ":%s" (include "flatnet.port" $v.services.metrics) -}}
{{- end -}}
FLATNETD_FABRIC: {{ $v.fabric.mode | quote }}
FLATNETD_VXLAN_ID: {{ $v.fabric.vxlan.id | int64 | quote }}
FLATNETD_VXLAN_PORT: {{ $v.fabric.vxlan.port | int64 | quote }}
FLATNETD_MTU: {{ $v.fabric.mtu | int64 | quote }}
FLATNETD_POD_DEVICE: {{ $v.fabric.podDevice | quote }}
FLATNETD_MASQUERADE_IPV4: {{ $v.masquerade.ipv4 | quote }}
FLATNETD_MASQUERADE_IPV6: {{ $v.masquerade.ipv6 | quote }}
FLATNETD_NON_MASQUERADE_CIDRS: {{ join "," $v.masquerade.exceptCIDRs | quote }}
FLATNETD_SERVICES: {{ $v.services.enabled | quote }}
FLATNETD_NODEPORT_ADDRESSES: {{ join "," $v.services.nodePortAddresses | quote }}
FLATNETD_POLICIES: {{ $v.policies.enabled | quote }}
FLATNETD_LOG_LEVEL: {{ $v.log.level | quote }}
{{- range list
  (list "FLATNETD_VXLAN_DEVICE" $v.fabric.vxlan.device "flatnet.vx")
  (list "FLATNETD_OVERLAY_NODES" $v.fabric.overlayNodes true)
  (list "FLATNETD_HEALTH" $v.fabric.health "auto")
  (list "FLATNETD_CLAMP_MSS" $v.fabric.clampMSS true)
  (list "FLATNETD_DATAPATH" $v.fabric.datapath "auto")
  (list "FLATNETD_SERVICE_CIDRS" (join "," $v.services.cidrs) "")
  (list "FLATNETD_SERVICES_HEALTH" $v.services.health ":10256")
  (list "FLATNETD_SERVICES_METRICS" $proxyMetrics "127.0.0.1:10249")
  (list "FLATNETD_POLICIES_WITHOUT_AGENT" $v.policies.withoutAgent "closed")
  (list "FLATNETD_LOG_DROPS" $v.policies.logDrops false)
  (list "FLATNETD_BGP_CONFIG" (ternary "/etc/flatnet/bgp/bgp.yaml" "" (ne $v.bgp.config "")) "")
  (list "FLATNETD_LOG_FORMAT" $v.log.format "text")
  (list "FLATNETD_RESYNC" $v.resync "1m")
  (list "FLATNETD_COLLECT" $v.collect "5m")
  (list "FLATNETD_CNI_BIN_DIR" $v.cni.binDir "/opt/cni/bin")
  (list "FLATNETD_CNI_CONF_DIR" $v.cni.confDir "/etc/cni/net.d")
  (list "FLATNETD_LISTEN" $listen "127.0.0.1:9370")
}}
{{- $name := index . 0 }}{{ $value := index . 1 }}{{ $usual := index . 2 }}
{{- if ne $value $usual }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- if $v.loadBalancer.pools }}
FLATNETD_LOADBALANCER_CONFIG: /etc/flatnet/loadbalancer/pools.yaml
{{- end }}
{{- if $v.apiServer.host }}
KUBERNETES_SERVICE_HOST: {{ $v.apiServer.host | quote }}
KUBERNETES_SERVICE_PORT: {{ $v.apiServer.port | int64 | quote }}
{{- end }}
{{- end }}
