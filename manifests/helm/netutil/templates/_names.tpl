{{/* The labels of every object. */}}
{{- define "netutil.labels" -}}
app.kubernetes.io/name: netutil
{{- end }}

{{/* The selector labels of the DaemonSet. */}}
{{- define "netutil.selector" -}}
app.kubernetes.io/name: netutil
app.kubernetes.io/component: agent
{{- end }}

{{/* The selector labels of the CSI driver. */}}
{{- define "netutil.csi.selector" -}}
app.kubernetes.io/name: netutil
app.kubernetes.io/component: csi
{{- end }}

{{/* Annotations of the pods, which podAnnotations may replace. */}}
{{- define "netutil.annotations" -}}
kubectl.kubernetes.io/default-container: agent
prometheus.io/scrape: "true"
prometheus.io/port: "9464"
{{- end }}

{{- define "netutil.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{/* Binds the cluster role of that name to the agent's service account: (list context name). */}}
{{- define "netutil.binding" -}}
{{- $context := index . 0 }}
{{- $name := index . 1 }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "netutil.labels" $context | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: ClusterRole
  name: {{ $name }}
subjects:
  - kind: ServiceAccount
    name: {{ $context.Values.serviceAccount.name }}
    namespace: {{ $context.Release.Namespace }}
{{- end }}

{{/* What the constraints of the agent and of the CSI driver have in common. */}}
{{- define "netutil.constraints" -}}
defaultAddCapabilities: []
requiredDropCapabilities: []
readOnlyRootFilesystem: true
runAsUser:
  type: RunAsAny
seLinuxContext:
  type: RunAsAny
fsGroup:
  type: RunAsAny
supplementalGroups:
  type: RunAsAny
seccompProfiles: ["*"]
{{- end }}
