{{/* The head of an engine's Deployment, up to where its containers begin. */}}
{{- define "posta.engine" }}
apiVersion: apps/v1
kind: Deployment
metadata:
  {{- include "posta.metadata" (dict "root" .root "name" .name "component" .name) | nindent 2 }}
spec:
  replicas: {{ .engine.replicas }}
  selector:
    matchLabels:
      {{- include "posta.selector" (dict "root" .root "component" .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "posta.labels" (dict "root" .root "component" .name) | nindent 8 }}
    spec:
      {{- include "posta.podHead" (dict "root" .root "user" .engine.runAsUser "group" .engine.runAsUser) | nindent 6 }}
{{- end }}

{{- define "posta.clamdRest" -}}
securityContext:
  {{- include "posta.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: config, mountPath: /etc/posta, readOnly: true}
  - {name: signatures, mountPath: /var/lib/clamav}
{{- end }}
