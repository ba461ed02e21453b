{{/* The number in a share of the nodes, such as 1, "10%" or "0%". */}}
{{- define "netutil.share" -}}
{{ . | toString | trimSuffix "%" | atoi }}
{{- end }}

{{/* Ends the rendering, with one line for each value that cannot work on this cluster. */}}
{{- define "netutil.guards" -}}
{{- $version := .Capabilities.KubeVersion.Version }}
{{- $found := list }}
{{- if hasPrefix "ghcr.io/example/" .Values.image.repository }}
{{- $found = append $found "image.repository is a placeholder: build the image, and set its name" }}
{{- end }}
{{- if and .Values.hardened (semverCompare "<1.31.0-0" $version) }}
{{- $found = append $found (printf "hardened needs Kubernetes 1.31 or later, and this is %s: older API servers reject or drop recursiveReadOnly" $version) }}
{{- end }}
{{- if and (has .Values.podSource (list "kubelet" "auto")) (not .Values.kubelet.nodesProxy) (semverCompare "<1.32.0-0" $version) }}
{{- $found = append $found (printf "the kubelets of Kubernetes %s do not know nodes/pods: set kubelet.nodesProxy=true or podSource=apiserver" $version) }}
{{- end }}
{{- if and (eq .Values.podSource "pods-api") (semverCompare "<1.35.0-0" $version) }}
{{- $found = append $found (printf "podSource=pods-api needs Kubernetes 1.35 or later, and this is %s" $version) }}
{{- end }}
{{- if and (eq (toString .Values.resourceClaims) "apiserver") (semverCompare "<1.32.0-0" $version) }}
{{- $found = append $found (printf "resourceClaims=apiserver needs Kubernetes 1.32 or later, and this is %s" $version) }}
{{- end }}
{{- if and .Values.csi.enabled (eq .Values.csi.serviceAccount.name .Values.serviceAccount.name) }}
{{- $found = append $found "csi.serviceAccount.name is the account of the agent, whose permissions the driver must not have" }}
{{- end }}
{{- $surge := include "netutil.share" .Values.updateStrategy.maxSurge | int }}
{{- $unavailable := include "netutil.share" .Values.updateStrategy.maxUnavailable | int }}
{{- if eq (eq $surge 0) (eq $unavailable 0) }}
{{- $found = append $found "updateStrategy: exactly one of maxSurge and maxUnavailable must be 0" }}
{{- end }}
{{- $level := include "netutil.podSecurity" . }}
{{- if has $level (list "baseline" "restricted") }}
{{- $found = append $found (printf "the namespace %s enforces the Pod Security level %s, which rejects the agent: kubectl label --overwrite namespace %s pod-security.kubernetes.io/enforce=privileged" .Release.Namespace $level .Release.Namespace) }}
{{- end }}
{{- if and .Values.guards $found }}
{{- fail (printf "\n%s\n(guards=false renders all the same)" (join "\n" $found)) }}
{{- end }}
{{- end }}

{{/* The level that the release's namespace enforces by its label: empty without a label or a cluster. */}}
{{- define "netutil.podSecurity" -}}
{{- $namespace := lookup "v1" "Namespace" "" .Release.Namespace | default dict }}
{{- dig "metadata" "labels" "pod-security.kubernetes.io/enforce" "" $namespace }}
{{- end }}
