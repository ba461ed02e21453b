{{/* The init container that labels /run/netutil: ../../selinux has the reasons. */}}
{{- define "netutil.relabel" -}}
- name: selinux-label
  image: {{ include "netutil.image" . | quote }}
  {{- with .Values.image.pullPolicy }}
  imagePullPolicy: {{ . }}
  {{- end }}
  command: [python, -I, -c]
  args:
    - |
      import os
      with open("/proc/filesystems", encoding="ascii") as filesystems:
          selinux = "selinuxfs" in filesystems.read().split()
      if selinux:
          label = b"system_u:object_r:container_file_t:s0\0"
          os.setxattr("/run/netutil", "security.selinux", label)
  resources:
    requests:
      cpu: 10m
      memory: 16Mi
    limits:
      memory: 64Mi
  securityContext:
    runAsUser: 0
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
    seccompProfile:
      type: RuntimeDefault
    seLinuxOptions:
      type: spc_t
  volumeMounts:
    - name: socket
      mountPath: /run/netutil
{{- end }}
