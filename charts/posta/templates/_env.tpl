{{/* The environment of a service's container. */}}
{{- define "posta.serviceEnv" -}}
{{- $root := .root -}}
{{- $row := .service.row -}}
{{ include "posta.commonEnv" $root }}
{{- with include "posta.readOnlyEnv" $root }}
{{ . }}
{{- end }}
- name: POSTA_HEALTH_PORT
  value: "9090"
- name: POSTA_GRACE_S
  value: {{ .service.graceSeconds | quote }}
{{- range $setting := $row.shut }}
- name: {{ $setting }}
  value: "0"
{{- end }}
{{- $doors := .doors }}
{{- range $door, $facts := $row.doors }}
- name: {{ $facts.setting }}
  value: {{ hasKey $doors $door | ternary $facts.target 0 | quote }}
{{- end }}
{{- if $row.takes }}
- name: POSTA_TLS_CERT
  value: /tls/tls.crt
- name: POSTA_TLS_KEY
  value: /tls/tls.key
{{- with include "posta.domainFolders" $root }}
- name: POSTA_TLS_DOMAINS
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- $networks := kindIs "slice" .service.proxyNetworks | ternary .service.proxyNetworks $root.Values.proxyProtocol.networks }}
{{- if and $networks $row.doors }}
- name: POSTA_PROXY_NETWORKS
  value: {{ join "," $networks | quote }}
{{- end }}
{{- with $root.Values.tracing.endpoint }}
- name: POSTA_OTLP_ENDPOINT
  value: {{ . | quote }}
- name: POSTA_OTLP_SHARE
  value: {{ $root.Values.tracing.share | quote }}
{{- end }}
{{- if eq .name "filter" }}
{{- with include "posta.filterEnv" $root | trim }}
{{ . }}
{{- end }}
{{- end }}
{{- if eq .name "sync" }}
{{- with include "posta.syncEnv" $root | trim }}
{{ . }}
{{- end }}
{{- end }}
{{- include "posta.settings" (mergeOverwrite (deepCopy $root.Values.settings) .service.settings) }}
{{- with .service.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "posta.filterEnv" -}}
{{- $name := include "posta.fullname" . -}}
{{- with concat (.Values.clamd.enabled | ternary (list (printf "%s-clamd:3310" $name)) list) .Values.clamd.addresses }}
- name: POSTA_FILTER_CLAMD
  value: {{ join "," . | quote }}
{{- end }}
{{- with concat (.Values.rspamd.enabled | ternary (list (printf "%s-rspamd:11333" $name)) list) .Values.rspamd.addresses }}
- name: POSTA_FILTER_RSPAMD
  value: {{ join "," . | quote }}
{{- end }}
{{- with concat (.Values.rspamd.enabled | ternary (list (printf "%s-rspamd:11334" $name)) list) .Values.rspamd.controllers }}
- name: POSTA_FILTER_RSPAMD_CONTROLLER
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{/* Autoconfig must name the ports that clients see, not those the pods listen on. */}}
{{- define "posta.syncEnv" -}}
{{- if .Values.mtaSts.enabled -}}
- name: POSTA_SYNC_MTA_STS
  value: {{ .Values.mtaSts.mode }}
{{- with .Values.mtaSts.mx }}
- name: POSTA_SYNC_MTA_STS_MX
  value: {{ join "," . | quote }}
{{- end }}
{{ end -}}
- name: POSTA_SYNC_ADMIN_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.admin.existingSecret | default (include "posta.generated" .) }}
      key: {{ empty .Values.admin.existingSecret | not | ternary .Values.admin.existingSecretKey "admin-token" }}
{{- $services := include "posta.services" . | fromYaml }}
{{- range $pair := list (list "imap" "imap" "IMAP_PORT") (list "imap" "imaps" "IMAP_TLS_PORT") (list "pop" "pop3" "POP_PORT") (list "pop" "pop3s" "POP_TLS_PORT") (list "submission" "submission" "SUBMISSION_PORT") (list "submission" "submissions" "SUBMISSION_TLS_PORT") }}
{{- $service := get $services (index $pair 0) | default dict }}
- name: POSTA_SYNC_{{ index $pair 2 }}
  value: {{ get ($service.ports | default dict) (index $pair 1) | default 0 | quote }}
{{- end }}
{{- end }}

{{/* Where the certificates of further domains are mounted, in the order of the values. */}}
{{- define "posta.domainFolders" -}}
{{- $folders := list -}}
{{- range $n, $_ := .Values.tls.domains -}}{{- $folders = append $folders (printf "/tls-domains/%d" $n) -}}{{- end -}}
{{- join "," $folders -}}
{{- end }}

{{- define "posta.domainVolume" -}}
name: tls-domains
projected:
  defaultMode: 0440
  sources:
    {{- range $n, $domain := .Values.tls.domains }}
    # One that is not there yet must not keep the pods of all the others from starting.
    - secret:
        name: {{ $domain.secret }}
        optional: true
        items:
          - {key: tls.crt, path: {{ $n }}/tls.crt}
          - {key: tls.key, path: {{ $n }}/tls.key}
    {{- end }}
{{- end }}
