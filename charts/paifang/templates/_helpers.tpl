{{/* Labels of an object that is not a pod. Arguments: root, component (may be empty), instance (may be empty). */}}
{{- define "paifang.labels" -}}
{{ include "paifang.selector" . }}
app.kubernetes.io/part-of: paifang
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The labels that pods are found by. Controller and gateways know them too. They never hold a version: a selector cannot change. */}}
{{- define "paifang.selector" -}}
app.kubernetes.io/name: paifang
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .instance }}
paifang.dev/instance: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "paifang.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* instances, each completed by instanceDefaults: a YAML list. */}}
{{- define "paifang.instances" -}}
{{- $all := list -}}
{{- range .Values.instances -}}
{{- $all = append $all (mustMergeOverwrite (deepCopy $.Values.instanceDefaults) .) -}}
{{- end -}}
{{ toYaml $all }}
{{- end }}

{{/* A map {maxHead: 8KiB} as arguments. Numbers come from YAML as floats, which print as 4e+06. */}}
{{- define "paifang.flags" -}}
{{- range $name, $value := . }}
{{- if not (kindIs "invalid" $value) }}
- {{ printf "--%s=%s" (kebabcase $name) (ternary (printf "%d" (int64 $value)) (toString $value) (kindIs "float64" $value)) | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* What the controller judges addresses by when it compiles, and a gateway again when it connects. */}}
{{- define "paifang.addresses" -}}
{{- range .Values.settings.allowBackends }}
- {{ printf "--allow-backend=%s" . | quote }}
{{- end }}
{{- if .Values.settings.allowLoopbackBackends }}
- "--allow-loopback-backends"
{{- end }}
{{- end }}

{{/* Pod security: "restricted", and a group for the volume. */}}
{{- define "paifang.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.runAsUser }}
runAsUser: {{ int64 . }}
runAsGroup: {{ int64 . }}
fsGroup: {{ int64 . }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "paifang.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where pods may run. Arguments: root, values, selector (a YAML map). */}}
{{- define "paifang.scheduling" -}}
{{- $selector := .selector }}
{{- with .values.topologySpread }}
topologySpreadConstraints:
{{- range . }}
- topologyKey: {{ .topologyKey }}
  maxSkew: {{ .maxSkew | default 1 }}
  whenUnsatisfiable: {{ .whenUnsatisfiable | default "ScheduleAnyway" }}
  {{- with .minDomains }}
  minDomains: {{ . }}
  {{- end }}
  labelSelector:
    matchLabels:
      {{- $selector | nindent 6 }}
  # Old and new pods of a rolling update are spread apart from each other.
  matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* How many pods may be evicted. Argument: pdb. */}}
{{- define "paifang.disruption" -}}
{{- if kindIs "invalid" .minAvailable }}
maxUnavailable: {{ .maxUnavailable }}
{{- else }}
minAvailable: {{ .minAvailable }}
{{- end }}
# A pod that is not ready serves nobody and must not block the draining of its node.
unhealthyPodEvictionPolicy: AlwaysAllow
{{- end }}

{{- define "paifang.imagePullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
The number of pods while it passes from this chart to an autoscaler. Server-side apply removes a field that its only owner no longer mentions, and a
Deployment without the field has one pod: so it is mentioned, as it is, until the autoscaler has written it. Arguments: root, name.
*/}}
{{- define "paifang.handedOver" -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace .name }}
{{- $ours := false }}
{{- range dig "metadata" "managedFields" list $live }}
{{- if and (eq .manager "helm") (hasKey (dig "fieldsV1" "f:spec" dict .) "f:replicas") }}
{{- $ours = true }}
{{- end }}
{{- end }}
{{- if $ours }}
replicas: {{ $live.spec.replicas }}
{{- end }}
{{- end }}
